"""Runs of experiments that are interrupted on purpose."""

import mmvae_jax as mm


def stoppable_fit(tell):
    """`mm.fit` of a command of several runs, to interrupt the command before one of them.

    Returns ``num -> fit``, where `fit` is interrupted once so many runs have started, and a list of
    what ``tell(options)`` says of each that has.
    """
    fit, started = mm.fit, []

    def killed_before(num):
        def fit_or_die(*arguments, **options):
            if len(started) == num:
                raise KeyboardInterrupt
            started.append(tell(options))
            return fit(*arguments, **options)

        return fit_or_die

    return killed_before, started
