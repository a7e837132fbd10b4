"""From gradients to scores of pairs."""
