"""A trained model of tables: latents, predictions and draws in the units of the data."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_count
from mmvae_jax.data.arrays import take
from mmvae_jax.estimator.networks import NetworkSettings
from mmvae_jax.inference.decoding import decode, draw_values, generate_from_prior
from mmvae_jax.inference.encoding import encode
from mmvae_jax.inference.weighting import Weighting
from mmvae_jax.inputs.masks import observed_rows, over_axes
from mmvae_jax.likelihood_settings import likelihood_of
from mmvae_jax.model import MMVAE
from mmvae_jax.tables.mixed_view import AnyView

#: Rows in one call on the device.
ROWS_PER_CALL = 256
_draw_values = jax.jit(draw_values, static_argnames="setting")


class Prediction(NamedTuple):
    """Predicted modalities of every row.

    Attributes:
      rows: values ``[n, *shape]`` by modality, or ``[n, num_samples, *shape]`` of draws. Text
        columns of a mixed table hold the number of the class; ``labelled`` has the names.
      probabilities: probabilities ``[n, *shape, classes]`` of classes without draws, by modality,
        and for a column of a mixed table by ``<modality>/<column>``.
      available: True for rows ``[n]`` that observe something given. The others are NaN, or -1 or
        empty text for classes.
    """

    rows: dict[str, Shaped[np.ndarray, "n ..."]]
    probabilities: dict[str, Float[np.ndarray, "n ..."]]
    available: Bool[np.ndarray, " n"]


class TableModel(NamedTuple):
    """A trained model, and the conversion of tables to its inputs and back.

    Attributes:
      model: an MMVAE.
      views: conversion of each modality to the model's input.
      networks: settings that the model's networks were built from.
    """

    model: MMVAE
    views: dict[str, AnyView]
    networks: NetworkSettings

    def encode(
        self,
        data: MultimodalArrays,
        given: Sequence[str],
        *,
        num_samples: int | None = None,
        weighting: Weighting = "mixture",
        seed: int = 0,
    ) -> tuple[Float[np.ndarray, "n *N d"], Bool[np.ndarray, " n"]]:
        """Encodes every row from the given modalities that it observes.

        Returns:
          Mean latents ``[n, d]``, or ``[n, num_samples, d]`` of draws; NaN where nothing given is
          observed. And a mask ``[n]`` of the other rows.
        """
        is_mean = num_samples is None
        num = 1 if num_samples is None else check_count("num_samples", num_samples)
        available = available_rows(data, given)
        latents = np.full((len(available), num, self.model.config.axes.size), np.nan, np.float32)
        for rows, key in _device_calls(available, seed):
            latents[rows] = encode(
                self.model,
                take(data, rows),
                key,
                cond_mod=given,
                N=num,
                return_mean=is_mean,
                weighting=weighting,
            )
        return latents[:, 0] if is_mean else latents, available

    def predict(
        self,
        data: MultimodalArrays,
        given: Sequence[str],
        generate: Sequence[str],
        *,
        num_samples: int | None = None,
        weighting: Weighting = "mixture",
        seed: int = 0,
    ) -> Prediction:
        """Predicts modalities of every row from the given ones that it observes.

        A draw is a latent from ``encode`` with this weighting, then a value from the likelihood.
        The likelihood of an image is noise on every pixel, so its draw is the decoded latent
        itself. Without ``num_samples`` the mean latent is decoded.

        The library size of counts is that of the row itself where they are given, and otherwise the
        median of training.
        """
        is_mean = num_samples is None
        num = 1 if num_samples is None else check_count("num_samples", num_samples)
        available = available_rows(data, given)
        found = {name: self.views[name].missing_rows(len(available), num) for name in generate}
        probabilities = {
            name + column: np.full((len(available), *shape), np.nan, np.float32)
            for name in generate
            for column, shape in self.views[name].class_shapes.items()
            if is_mean
        }
        options: dict[str, Any] = {"N": num, "return_mean": is_mean, "weighting": weighting}
        for rows, key in _device_calls(available, seed):
            batch = take(data, rows)
            latent_key, draw_key = jax.random.split(key)
            z = encode(self.model, batch, latent_key, cond_mod=given, **options)
            assert not isinstance(z, tuple), "no diagnostics are asked for"
            for name, decoded in decode(self.model, z, modalities=generate).items():
                params = self._params(name, decoded, batch if name in given else None)
                key = None if is_mean else draw_key
                values = np.asarray(self._values(name, decoded, params, key))
                found[name][rows] = self.views[name].to_rows(values)
                if is_mean:
                    for column, x in self.views[name].class_probabilities(values[:, 0]).items():
                        probabilities[name + column][rows] = x
        values = {name: x[:, 0] if is_mean else x for name, x in found.items()}
        return Prediction(values, probabilities, available)

    def sample(self, num: int, seed: int = 0) -> dict[str, Shaped[np.ndarray, "n ..."]]:
        """Draws rows of all modalities from the model; images without noise on every pixel.

        Libraries have the median size of training.
        """
        latent_key, draw_key = jax.random.split(jax.random.key(seed))
        z = generate_from_prior(self.model, latent_key, check_count("num", num))
        rows = {}
        for name, decoded in decode(self.model, z).items():
            values = self._values(name, decoded, self._params(name, decoded, None), draw_key)
            rows[name] = self.views[name].to_rows(np.asarray(values))
        return rows

    def labelled(self, rows: Mapping[str, np.ndarray]) -> dict[str, Shaped[np.ndarray, "n ..."]]:
        """Returns rows by modality with the names of classes in the place of numbers."""
        return {name: self.views[name].labelled(x) for name, x in rows.items()}

    def _values(
        self,
        name: str,
        decoded: Float[Array, "..."],
        params: Mapping[str, Any],
        key: PRNGKeyArray | None,
    ) -> Float[Array, "..."]:
        """Returns draws of the modality's likelihood, or without a key the mean.

        The mean of classes is their probabilities. Images have no noise on every pixel.
        """
        config = self.model.config
        setting, _ = config.likelihood(name)
        if key is None or self.views[name].is_image:
            mean = likelihood_of(setting).mean
            assert mean is not None, "every built-in likelihood has one"
            return mean(decoded, **params)
        key = jax.random.fold_in(key, config.modalities.index(name))
        return _draw_values(setting, key, decoded, params)

    def _params(self, name: str, decoded: Float[Array, "b N ..."], given: Any) -> dict[str, Any]:
        """Returns the parameters of the modality's likelihood.

        Args:
          name: name of the modality.
          decoded: decoded arrays, whose libraries may differ in size.
          given: batch that the sizes are read from; None if the modality is not given.
        """
        params = self.model.likelihood_params(name)
        size = self.views[name].library_size
        if size is not None and given is not None:
            x, observed = given.data[name], given.mask[name]
            params["library_size"] = library_sizes(x, observed, decoded, size)
        return params


def library_sizes(
    x: Float[np.ndarray, "b *dim"],
    observed: Bool[np.ndarray, "b *entries"],
    decoded: Float[Array, "b N *dim"],
    size: float,
) -> Float[Array, "b N *ones"]:
    """Returns the library size that explains the observed total of each row.

    Missing entries have a share of the library, too: the total of the others, divided by their
    share, is the size.

    Args:
      x: counts.
      observed: True for observed rows, or entries.
      decoded: logits of the shares.
      size: size of libraries without an observed entry.
    """
    seen = np.broadcast_to(over_axes(observed, x.ndim), x.shape)
    total = np.where(seen, x, 0).sum(-1, keepdims=True)[:, None]
    share = jnp.where(seen[:, None], jax.nn.softmax(decoded), 0).sum(-1, keepdims=True)
    own = jnp.maximum(total, 1e-30) / jnp.maximum(share, 1e-30)
    is_observed = np.any(seen, -1, keepdims=True)[:, None]
    return jnp.where(is_observed, own, size)


def available_rows(data: MultimodalArrays, given: Sequence[str]) -> Bool[np.ndarray, " n"]:
    """Returns True for the rows that observe one of these modalities or more."""
    assert data.mask is not None, "make_examples gives a mask"
    return np.any([observed_rows(data.mask[name]) for name in given], axis=0)


def _device_calls(
    available: Bool[np.ndarray, " n"], seed: int
) -> Iterator[tuple[Int[np.ndarray, " b"], PRNGKeyArray]]:
    """Yields the available rows of each call on the device, and a key for the call."""
    there = np.flatnonzero(available)
    for start in range(0, len(there), ROWS_PER_CALL):
        key = jax.random.fold_in(jax.random.key(seed), start)
        yield there[start : start + ROWS_PER_CALL], key
