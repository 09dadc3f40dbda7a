"""The page that shows an archive's state at a glance. Counts, sizes and names of exports; nothing of any user."""
