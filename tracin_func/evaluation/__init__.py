"""Does it help here: models retrained on chosen pairs, and how well scores foresee their outcomes."""
