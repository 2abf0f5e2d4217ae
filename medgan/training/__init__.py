"""Training a generator: losses (pure tensor functions), steps (one update of each network), loop (setup to save)."""
