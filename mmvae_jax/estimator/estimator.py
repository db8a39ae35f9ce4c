"""A scikit-learn estimator: an MMVAE that is fitted to tables and used in their units."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Shaped
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted

from mmvae_jax.checks import check_share
from mmvae_jax.estimator.measurements import joint_log_likelihoods
from mmvae_jax.estimator.run_folder import is_run, open_run
from mmvae_jax.estimator.saved_model import read_table_model, write_table_model
from mmvae_jax.estimator.settings import TrainingSettings
from mmvae_jax.estimator.table_model import Prediction, TableModel
from mmvae_jax.estimator.training import split_for_training, train
from mmvae_jax.inference.selection import Selection, modality_names
from mmvae_jax.inference.weighting import Weighting
from mmvae_jax.inputs.masks import over_axes
from mmvae_jax.inputs.paths import as_path
from mmvae_jax.tables.examples import check_examples
from mmvae_jax.tables.mixed_view import AnyView, MixedView
from mmvae_jax.tables.reading import read_tables
from mmvae_jax.tables.tables import Tables
from mmvae_jax.tables.view_checks import in_order

#: Particles of each likelihood in ``score``.
NUM_PARTICLES = 1000


class MMVAEEstimator(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, TrainingSettings
):
    """An MMVAE of tables, with the interface of scikit-learn.

    Its parameters are the fields of ``TrainingSettings``. ``X`` is anything that
    ``mmvae_jax.read_tables`` takes: a dict of arrays or frames, a file, a folder; rows with missing
    modalities and cells among them. Cross-validation needs rows that it can index, which
    ``mmvae_jax.Tables`` has.

    After ``fit``, ``trained_`` is the model with the conversion of tables to its inputs and back,
    ``modalities_`` has the names of the modalities, and ``summary_`` the numbers of steps, rows and
    parameters, and the bound of the validation rows.

    >>> tables = {"sound": np.random.default_rng(0).normal(size=(40, 4)), "word": ["a", "b"] * 20}
    >>> fitted = mm.MMVAEEstimator(latent_dim=2, K=2, num_steps=3, validation=0.0).fit(tables)
    >>> fitted.transform(tables).shape
    (40, 2)
    >>> fitted.predict({"sound": tables["sound"][:3]}, generate="word")["word"].shape
    (3,)
    """

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        out: str | os.PathLike | None = None,
        resume: bool = False,
        progress: bool = False,
    ) -> "MMVAEEstimator":
        """Trains a model on tables, and keeps that of the best evaluation.

        Args:
          X: tables.
          y: not used; a target is a modality of its own.
          out: new folder for checkpoints and metrics, which ``mmvae`` reads too; by default
            nothing stays on disk.
          resume: True to continue the run in ``out``, with the same tables and parameters.
          progress: True for a progress bar.

        Raises:
          ValueError: naming the table, row or parameter that is wrong, before any compute.
        """
        data = split_for_training(_tables(X), self)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "run" if out is None else as_path(out, "out")
            self.trained_, self.summary_ = train(
                data, self, folder, resume=resume, progress=progress
            )
        self.modalities_ = tuple(self.trained_.views)
        return self

    def transform(
        self, X: Any, *, given: Selection = "all", weighting: Weighting = "mixture"
    ) -> Float[np.ndarray, "n d"]:
        """Returns the mean latent of each row; NaN where nothing given is observed.

        Args:
          X: tables; modalities may be absent.
          given: modalities to encode: ``"all"``, a name or several names.
          weighting: use of several given modalities, as in ``mmvae_jax.encode``.
        """
        trained = self._fitted()
        names = modality_names("given", given, trained.model.config)
        data = check_examples(_tables(X), trained.views)
        return trained.encode(data, names, weighting=weighting)[0]

    def predict(
        self,
        X: Any,
        *,
        given: Selection = "all",
        generate: Selection = "all",
        num_samples: int | None = None,
        weighting: Weighting = "mixture",
        seed: int = 0,
    ) -> dict[str, Shaped[np.ndarray, "n ..."]]:
        """Predicts modalities of each row from the others that it observes.

        Args:
          X: tables; modalities may be absent.
          given: modalities to predict from.
          generate: modalities to predict.
          num_samples: number of draws per row; None for one value, decoded from the mean latent.
          weighting: use of several given modalities, as in ``mmvae_jax.encode``.
          seed: seed of the draws.

        Returns:
          Values in the units of the data, ``[n, *shape]`` or ``[n, num_samples, *shape]`` by
          modality. Rows that observe nothing given are NaN, or -1 or empty text for classes. A
          table with text among its columns is a structured array, whose fields are the columns.
        """
        options: dict[str, Any] = {"weighting": weighting, "seed": seed}
        found = self._predict(X, given, generate, num_samples=num_samples, **options)
        return self.trained_.labelled(found.rows)

    def predict_proba(
        self, X: Any, *, given: Selection = "all", generate: Selection = "all"
    ) -> dict[str, Float[np.ndarray, "n ..."]]:
        """Returns probabilities ``[n, *shape, classes]`` of the classes of each categorical.

        The order of the classes is that of ``trained_.views[name].classes``, or ``0, 1, ...``. The
        classes of a column of a mixed table are ``<modality>/<column>``.
        """
        return self._predict(X, given, generate).probabilities

    def predict_interval(
        self,
        X: Any,
        *,
        level: float = 0.9,
        given: Selection = "all",
        generate: Selection = "all",
        num_samples: int = 200,
        weighting: Weighting = "mixture",
        seed: int = 0,
    ) -> dict[str, Float[np.ndarray, "n 2 ..."]]:
        """Returns central intervals of predictions: lower and upper quantiles of draws.

        Args:
          X: tables; modalities may be absent.
          level: probability of the interval under the model.
          given: modalities to predict from.
          generate: modalities to predict; classes, which have no order, are left out, and NaN in a
            mixed table.
          num_samples: number of draws per row.
          weighting: use of several given modalities, as in ``mmvae_jax.encode``.
          seed: seed of the draws.

        Returns:
          ``[n, 2, *shape]`` by modality, in the units of the data.
        """
        level = check_share("level", level)
        drawn = self._predict(
            X, given, generate, num_samples=num_samples, weighting=weighting, seed=seed
        ).rows
        tail = (1 - level) / 2
        return {
            name: np.moveaxis(
                np.quantile(_ordered(view, drawn[name]), (tail, 1 - tail), axis=1), 0, 1
            )
            for name, view in self._fitted().views.items()
            if name in drawn and not view.num_classes
        }

    def impute(
        self, X: Any, *, weighting: Weighting = "mixture"
    ) -> dict[str, Shaped[np.ndarray, "n ..."]]:
        """Returns all modalities of each row, predicted where they are missing.

        Observed values stay as they are, in the columns' order of training.
        """
        trained, tables = self._fitted(), _tables(X)
        found = self._predict(tables, "all", "all", weighting=weighting).rows
        for name, view in trained.views.items():
            if name not in tables.modalities:
                continue
            table = tables.modalities[name]
            values = in_order(table, view, np.arange(tables.num_rows))
            seen = np.broadcast_to(over_axes(table.observed, values.ndim), values.shape)
            if values.dtype.kind == "f":
                seen = seen & ~np.isnan(values)
            found[name] = np.where(seen, values, found[name]).astype(found[name].dtype)
        return trained.labelled(found)

    def sample(
        self, n_samples: int = 1, *, seed: int = 0
    ) -> dict[str, Shaped[np.ndarray, "n ..."]]:
        """Draws rows of all modalities from the model, in the units of the data.

        Counts with a library size have the median total of the rows to train on.
        """
        return self._fitted().labelled(self._fitted().sample(n_samples, seed))

    def score_samples(
        self, X: Any, *, num_particles: int = NUM_PARTICLES, seed: int = 0
    ) -> Float[np.ndarray, " n"]:
        """Returns log p of everything that each row observes, in nats and the units of the data.

        An estimate by importance sampling, below the exact value on average
        (``mmvae_jax.compute_joint_nll``). The density of counts with a library size is that
        given their total, and does not compare with one of ``library_size={name: "none"}``.
        """
        trained, key = self._fitted(), jax.random.key(seed)
        return joint_log_likelihoods(trained, _tables(X), key, num_particles=num_particles)

    def score(self, X: Any, y: Any = None) -> float:
        """Returns the mean of ``score_samples``."""
        return float(self.score_samples(X).mean())

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes the model, its tables' conversion and the parameters into a new folder.

        Raises:
          FileExistsError: if there is anything at the path.
        """
        return write_table_model(as_path(folder, "folder"), self._fitted(), self.get_params())

    @classmethod
    def load(cls, folder: str | os.PathLike, *, step: int | None = None) -> "MMVAEEstimator":
        """Returns the fitted estimator of a folder that ``save``, ``fit`` or ``mmvae`` has written.

        Args:
          folder: folder of ``save``, or of a run: the ``out`` of ``fit`` or of ``mmvae train``.
          step: saved step of a run, by default that of the best evaluation.

        Raises:
          FileNotFoundError: if there is no such folder.
          ValueError: if files are damaged or of something else.
        """
        place = as_path(folder, "folder")
        if is_run(place):
            estimator = cls()
            estimator.trained_, _ = open_run(place).load(step)
        else:
            trained, params = read_table_model(place)
            estimator = cls(**params)
            estimator.trained_ = trained
        estimator.modalities_ = tuple(estimator.trained_.views)
        return estimator

    def _predict(self, X: Any, given: Selection, generate: Selection, **options: Any) -> Prediction:
        trained = self._fitted()
        config = trained.model.config
        names = modality_names("given", given, config)
        wanted: Sequence[str] = modality_names("generate", generate, config)
        return trained.predict(check_examples(_tables(X), trained.views), names, wanted, **options)

    @property
    def _n_features_out(self) -> int:
        """Number of latents, by which scikit-learn names the columns of ``transform``."""
        return self._fitted().model.config.axes.size

    def _fitted(self) -> TableModel:
        """Returns the trained model, or raises scikit-learn's ``NotFittedError``."""
        check_is_fitted(self, "trained_")
        return self.trained_


def _ordered(view: AnyView, rows: np.ndarray) -> np.ndarray:
    """Returns rows with NaN in the place of classes."""
    return view.without_classes(rows) if isinstance(view, MixedView) else rows


def _tables(X: Any) -> Tables:
    """Returns tables as they are, and anything else read."""
    return X if isinstance(X, Tables) else read_tables(X)
