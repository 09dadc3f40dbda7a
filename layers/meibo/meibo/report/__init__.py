"""The report: a page with the state of an archive. It contains counts, sizes and names of exports, but no user data."""
