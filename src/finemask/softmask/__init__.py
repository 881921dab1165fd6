"""Soft Masks: labels finer than a reader can draw."""
