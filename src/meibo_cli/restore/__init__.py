"""Bring archived directories back: what can be, in the form that the provider takes."""
