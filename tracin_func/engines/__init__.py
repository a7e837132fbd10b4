"""Ways to obtain gradients of units."""
