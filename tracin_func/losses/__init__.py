"""Losses of ranking pairs, one per file, and their values and derivatives at given scores."""
