"""The strongest pairs of each test pair, from a table that is read in blocks."""
