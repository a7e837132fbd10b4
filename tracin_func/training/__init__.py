"""Training of rankers on pairs."""
