"""Meibo (名簿): archive the user directories of an organization, and change organization memberships."""

__version__ = "0.1.0"
