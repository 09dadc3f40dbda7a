"""Convert archived directories into files that the providers import."""
