"""Training pairs: LR and HR of one case on one physical extent, cut, moved and cached."""
