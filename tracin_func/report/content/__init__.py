"""What a report says, in whatever form: numbers, charts, sentences and views of items."""
