"""Deployment: a trained network as a folder that predicts anywhere, with or without torch."""
