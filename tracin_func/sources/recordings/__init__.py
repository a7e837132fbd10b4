"""Recordings of tones in folders by class and material."""
