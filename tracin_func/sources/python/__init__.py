"""A task that the user's own function returns."""
