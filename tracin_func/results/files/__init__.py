"""Result files, one format per file."""
