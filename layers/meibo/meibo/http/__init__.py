"""HTTP requests to providers: the transport and the rate limiter, which all providers share."""
