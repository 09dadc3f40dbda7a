"""HTTP to the providers: one transport and one rate limiter, which all of them share."""
