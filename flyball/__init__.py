"""Flyball keeps machine-learning systems healthy."""
