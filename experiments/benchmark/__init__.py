"""What a step costs, here and elsewhere: ``python -m experiments.benchmark --help``.

The command line's process starts workers and waits for them. It imports neither JAX nor torch, and
the modules that a worker of MultiVae imports do not import JAX.
"""
