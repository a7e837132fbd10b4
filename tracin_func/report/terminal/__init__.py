"""Scores, stores and forecasts as text."""
