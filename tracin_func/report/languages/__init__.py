"""The sentences of a report, one table per language."""
