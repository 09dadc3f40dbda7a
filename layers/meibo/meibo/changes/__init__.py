"""Changes of organization memberships, which are messages on a queue."""
