"""The study: does an augmentation help a downstream model? Arms × paired seeds, statistics, a report."""
