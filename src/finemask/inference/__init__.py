"""Inference: from one LR image, or thousands of files, to masks at their true place."""
