"""Losses: pure functions of equal-shaped tensors, averaged over the batch."""
