"""Models of tables: a scikit-learn estimator, its settings, and the folder of a run."""

from typing import Any

from mmvae_jax.estimator.table_model import Prediction, TableModel

__all__ = ["Prediction", "TableModel"]  # and MMVAEEstimator, on first use


def __getattr__(name: str) -> Any:
    """Imports the estimator on first use, because scikit-learn takes a second."""
    if name == "MMVAEEstimator":
        from mmvae_jax.estimator.estimator import MMVAEEstimator

        return MMVAEEstimator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
