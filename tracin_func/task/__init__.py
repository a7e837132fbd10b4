"""What is scored: items, pairs, checkpoints and settings."""
