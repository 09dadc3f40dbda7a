"""The commands of ``meibo``: one module per command, named after it."""
