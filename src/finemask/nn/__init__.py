"""Network parts: tensors in, tensors out; 2-D and 3-D from the same code."""
