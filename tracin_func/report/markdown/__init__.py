"""A report as a Markdown file with its pictures."""
