"""The command ``meibo``. It is not part of the Lambda layer."""
