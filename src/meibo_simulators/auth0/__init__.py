"""A simulator of an Auth0 tenant: its Management API v2 and the host of its export files."""
