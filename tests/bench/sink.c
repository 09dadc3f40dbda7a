/* An S3 over TLS that throws every body away: what is left is what the client and the network cost.

   sink PORT CERT KEY RATE ACK_MS
   RATE is bytes a second of one connection (0: unlimited), ACK_MS the time until a body is acknowledged.
   It knows just enough of S3 for the AWS CLI, SDKs, rclone, s5cmd and obstore to finish an upload. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define HEAD 65536
#define PIECE 65536
#define TAG "0123456789abcdef0123456789abcdef"

static SSL_CTX *context;
static double rate;
static long ack_ms;
static atomic_long stored;   /* bytes of the object that is being written */
static atomic_int complete;  /* whether a HEAD finds it */

struct connection {
    SSL *tls;
    char buffer[HEAD + PIECE];
    size_t have, at;  /* bytes in the buffer, and how many of them are used up */
    double due;       /* when the bytes read so far may have arrived */
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void sleep_for(double seconds) {
    struct timespec t = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    nanosleep(&t, NULL);
}

static void pace(struct connection *c, size_t count) {
    if (rate <= 0) return;
    double t = now();
    if (c->due < t - 0.005) c->due = t;
    c->due += count / rate;
    if (c->due > t + 0.002) sleep_for(c->due - t);
}

/* More bytes into the buffer; 0 when the client is gone. */
static int more(struct connection *c) {
    if (c->at == c->have) c->at = c->have = 0;
    size_t room = sizeof c->buffer - c->have;
    if (room == 0) return 0;
    int count = SSL_read(c->tls, c->buffer + c->have, room > PIECE ? PIECE : (int)room);
    if (count <= 0) return 0;
    pace(c, count);
    c->have += count;
    return 1;
}

static int skip(struct connection *c, long count) {
    while (count > 0) {
        if (c->at == c->have && !more(c)) return 0;
        size_t there = c->have - c->at;
        if ((long)there > count) there = count;
        c->at += there;
        count -= there;
    }
    return 1;
}

/* One line without its end into `line`. */
static int read_line(struct connection *c, char *line, size_t size) {
    size_t length = 0;
    for (;;) {
        if (c->at == c->have && !more(c)) return 0;
        char byte = c->buffer[c->at++];
        if (byte == '\n') break;
        if (byte != '\r' && length + 1 < size) line[length++] = byte;
    }
    line[length] = 0;
    return 1;
}

static long skip_chunks(struct connection *c) {
    char line[256];
    long total = 0;
    for (;;) {
        if (!read_line(c, line, sizeof line)) return -1;
        long size = strtol(line, NULL, 16);
        if (size == 0) {
            do {
                if (!read_line(c, line, sizeof line)) return -1;
            } while (line[0]);
            return total;
        }
        if (!skip(c, size) || !read_line(c, line, sizeof line)) return -1;
        total += size;
    }
}

static int answer(struct connection *c, const char *status, const char *headers, const char *body) {
    char text[2048];
    int length = snprintf(text, sizeof text, "HTTP/1.1 %s\r\n%sConnection: keep-alive\r\n%s", status, headers,
                          body ? "" : "\r\n");
    if (body)
        length += snprintf(text + length, sizeof text - length, "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    return SSL_write(c->tls, text, length) > 0;
}

static int serve_one(struct connection *c) {
    char line[HEAD], method[16] = "", target[8192] = "", headers[256];
    long length = 0, decoded = -1;
    int chunked = 0;
    if (!read_line(c, line, sizeof line) || sscanf(line, "%15s %8191s", method, target) != 2) return 0;
    for (;;) {
        if (!read_line(c, line, sizeof line)) return 0;
        if (!line[0]) break;
        if (!strncasecmp(line, "content-length:", 15)) length = atol(line + 15);
        if (!strncasecmp(line, "x-amz-decoded-content-length:", 29)) decoded = atol(line + 29);
        if (!strncasecmp(line, "transfer-encoding:", 18) && strstr(line, "chunked")) chunked = 1;
        if (!strncasecmp(line, "expect:", 7) && SSL_write(c->tls, "HTTP/1.1 100 Continue\r\n\r\n", 25) <= 0) return 0;
    }
    if (chunked) {
        if ((length = skip_chunks(c)) < 0) return 0;
    } else if (!skip(c, length)) {
        return 0;
    }
    if (decoded < 0) decoded = length;
    const char *query = strchr(target, '?');
    if (!strcmp(method, "PUT")) {
        if (query && strstr(query, "partNumber=")) {
            stored += decoded;
        } else {
            stored = decoded;
            complete = 1;
        }
        if (ack_ms) sleep_for(ack_ms / 1000.0);
        return answer(c, "200 OK", "ETag: \"" TAG "\"\r\n", "");
    }
    if (!strcmp(method, "POST") && query && strstr(query, "uploadId=")) {
        complete = 1;
        return answer(c, "200 OK", "Content-Type: application/xml\r\n",
                      "<?xml version=\"1.0\"?><CompleteMultipartUploadResult><Bucket>archive</Bucket><Key>k</Key>"
                      "<ETag>\"" TAG "-9\"</ETag></CompleteMultipartUploadResult>");
    }
    if (!strcmp(method, "POST")) {
        stored = 0;
        complete = 0;
        return answer(c, "200 OK", "Content-Type: application/xml\r\n",
                      "<?xml version=\"1.0\"?><InitiateMultipartUploadResult><Bucket>archive</Bucket><Key>k</Key>"
                      "<UploadId>one</UploadId></InitiateMultipartUploadResult>");
    }
    if (!strcmp(method, "DELETE")) {
        complete = 0;
        stored = 0;
        return answer(c, "204 No Content", "", NULL);
    }
    if (!strcmp(method, "HEAD") && complete) {
        snprintf(headers, sizeof headers,
                 "ETag: \"" TAG "-9\"\r\nContent-Length: %ld\r\nLast-Modified: Sat, 21 Nov 2026 00:00:00 GMT\r\n",
                 (long)stored);
        return answer(c, "200 OK", headers, NULL);
    }
    if (!strcmp(method, "HEAD")) return answer(c, "404 Not Found", "Content-Length: 0\r\n", NULL);
    return answer(c, "200 OK", "Content-Type: application/xml\r\n",
                  "<?xml version=\"1.0\"?><ListBucketResult><Name>archive</Name><IsTruncated>false</IsTruncated>"
                  "</ListBucketResult>");
}

static void *serve(void *argument) {
    int fd = (int)(long)argument, one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct connection *c = calloc(1, sizeof *c);
    c->tls = SSL_new(context);
    SSL_set_fd(c->tls, fd);
    if (SSL_accept(c->tls) > 0)
        while (serve_one(c)) {
        }
    SSL_shutdown(c->tls);
    SSL_free(c->tls);
    free(c);
    close(fd);
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 6) {
        fprintf(stderr, "usage: sink PORT CERT KEY RATE ACK_MS\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    rate = atof(arguments[4]);
    ack_ms = atol(arguments[5]);
    context = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(context, arguments[2]) <= 0 ||
        SSL_CTX_use_PrivateKey_file(context, arguments[3], SSL_FILETYPE_PEM) <= 0)
        return 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, window = 1 << 18;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (rate > 0) setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &window, sizeof window);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 256)) return 1;
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pthread_t thread;
        if (fd < 0) continue;
        if (pthread_create(&thread, NULL, serve, (void *)(long)fd))
            close(fd);
        else
            pthread_detach(thread);
    }
}
