"""Annotation: data sets of Soft Masks from masks, several readers or RECIST marks."""
