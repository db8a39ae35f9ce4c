"""Checks of figures, and the names of those that a run of an experiment writes."""

import io

from matplotlib import pyplot

FIGURES = {
    f"{name}.png"
    for name in (
        "cross_generation",
        "prior_samples",
        "interpolation",
        "loss",
        "divergences",
        "responsibilities",
        "weights",
        "latents",
    )
}


def assert_draws(figure) -> None:
    """Checks that the figure renders, and that pyplot does not know it."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []
