"""What every figure must do."""

import io

from matplotlib import pyplot


def assert_draws(figure) -> None:
    """Renders the figure, which must not be one of pyplot's."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []
