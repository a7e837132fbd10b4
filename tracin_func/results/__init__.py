"""Scores to read, filter and save."""
