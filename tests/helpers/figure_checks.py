"""What every figure must do, and the figures that a run of an experiment leaves."""

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
    """Renders the figure, which must not be one of pyplot's."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []
