"""Comparison: every method on the same data, splits, seeds, budget and metrics."""
