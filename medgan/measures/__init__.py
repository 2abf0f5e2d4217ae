"""Measures on arrays: a feature space for volumes, and distances between sets of them."""
