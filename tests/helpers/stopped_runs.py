"""Interrupted programs of several training runs."""

import mmvae_jax as mm


def stoppable_fit(describe):
    """Replaces ``mm.fit`` in a program of several runs, to interrupt the program between them.

    Args:
      describe: function of the keyword arguments of ``mm.fit``.

    Returns:
      A function ``num -> fit`` and a list. This ``fit`` raises KeyboardInterrupt when ``num`` runs
      have started. The list has ``describe(options)`` of each started run.
    """
    fit, started = mm.fit, []

    def killed_before(num):
        def fit_or_die(*arguments, **options):
            if len(started) == num:
                raise KeyboardInterrupt
            started.append(describe(options))
            return fit(*arguments, **options)

        return fit_or_die

    return killed_before, started
