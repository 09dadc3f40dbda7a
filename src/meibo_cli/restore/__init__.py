"""Restore archived users, roles, organizations and memberships."""
