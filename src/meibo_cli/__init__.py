"""The command ``meibo``, for people who hold an archive. Not in the Lambda layer."""
