"""Models of tables: a scikit-learn estimator, its settings, and the folder of a run."""

from mmvae_jax.estimator.estimator import MMVAEEstimator
from mmvae_jax.estimator.table_model import Prediction, TableModel

__all__ = ["MMVAEEstimator", "Prediction", "TableModel"]
