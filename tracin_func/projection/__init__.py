"""Random projections of gradients: rows of a few thousand numbers whose inner products estimate the exact ones."""
