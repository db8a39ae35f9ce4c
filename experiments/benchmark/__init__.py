"""A benchmark of a training step: ``python -m experiments.benchmark --help``."""
