"""The embedded example: synthetic tones and a ranker trained on them."""
