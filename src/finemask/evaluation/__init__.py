"""Evaluation: masks on disk, whoever made them, against the truth."""
