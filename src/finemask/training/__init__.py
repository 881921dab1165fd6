"""Training: one loop for every method, and what a run leaves behind."""
