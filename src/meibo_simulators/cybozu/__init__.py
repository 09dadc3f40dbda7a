"""A simulator of a cybozu.com domain: its User API."""
