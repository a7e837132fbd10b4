"""A task that a function of the user's own returns."""
