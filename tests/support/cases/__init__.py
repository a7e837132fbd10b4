"""Models, items, checkpoints and job files that users really have, with an independent reference for their scores."""
