"""Changes of organization memberships from the queue."""
