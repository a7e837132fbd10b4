"""Gradient rows on disk."""
