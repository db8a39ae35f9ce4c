"""Checks and conversions of arrays, values, keys and paths at the package's entries."""
