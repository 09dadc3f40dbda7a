"""Changes of organization memberships that arrive on the queue."""
