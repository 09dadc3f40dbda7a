"""HTTP requests to providers. All providers share the transport and the rate limiter."""
