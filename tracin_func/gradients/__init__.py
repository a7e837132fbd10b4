"""Per-example gradients and their inner products. Knows no pairs and no losses."""
