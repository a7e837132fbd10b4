"""What is kept of a gradient, one form per file."""
