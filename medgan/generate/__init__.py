"""Batch generation: sources × n → files and sidecars."""
