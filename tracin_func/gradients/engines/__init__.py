"""How a batch of units is differentiated, one engine per file."""
