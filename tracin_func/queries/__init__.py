"""Questions to a table of training pairs of any length, which is read in blocks and never held as scores."""
