"""The page that shows an archive's state. It contains counts, sizes and names of exports, and no user data."""
