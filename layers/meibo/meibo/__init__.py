"""Meibo (名簿): an organization's own, proven copy of its user directories."""

__version__ = "0.1.0"
