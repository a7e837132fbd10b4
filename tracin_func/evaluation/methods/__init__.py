"""Scores of training pairs to compare: one file per method, and a line in `registry`."""
