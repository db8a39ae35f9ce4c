"""Data sets of the field, each a function from a folder or a seed to its splits."""
