"""What users give, checked and converted at the package's entries: arrays, values, keys, paths."""
