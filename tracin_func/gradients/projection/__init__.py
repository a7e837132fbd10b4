"""Random projections of gradients, one per file."""
