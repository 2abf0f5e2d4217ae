"""Limits that the configuration and the command line share; it is read at every start, so it imports nothing."""

MAX_STRENGTH = 4.0
"""Largest strength of siblings. Above 1 they differ more than was learned; what a downstream model learns most from may
lie there (docs/research-log.md), so it is to be had, evaluated and compared like any other."""
