"""Evaluation of a generator: fidelity, diversity, preservation and privacy of its siblings."""
