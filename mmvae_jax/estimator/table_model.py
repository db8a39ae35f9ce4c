"""A trained model of tables: latents, predictions and draws in the units of the data."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_count
from mmvae_jax.data.arrays import take
from mmvae_jax.estimator.networks import NetworkSettings
from mmvae_jax.inference.decoding import decode, generate_from_prior, predict
from mmvae_jax.inference.encoding import encode
from mmvae_jax.inference.weighting import Weighting
from mmvae_jax.inputs.masks import observed_rows
from mmvae_jax.maths.likelihoods import LIKELIHOODS
from mmvae_jax.model import MMVAE
from mmvae_jax.tables.views import View

#: Rows in one call on the device.
ROWS_PER_CALL = 256


class Prediction(NamedTuple):
    """Predicted modalities of every row.

    Attributes:
      rows: values ``[n, *shape]`` by modality, or ``[n, num_samples, *shape]`` of draws.
      probabilities: probabilities ``[n, *shape, classes]`` of classes by modality, without draws.
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
    views: dict[str, View]
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
        latents = np.full((len(available), num, self.model.config.latent_dim), np.nan, np.float32)
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
        """
        is_mean = num_samples is None
        num = 1 if num_samples is None else check_count("num_samples", num_samples)
        available = available_rows(data, given)
        found = {name: self.views[name].missing_rows(len(available), num) for name in generate}
        probabilities = {
            name: np.full((len(available), *self.views[name].dim), np.nan, np.float32)
            for name in generate
            if is_mean and self.views[name].num_classes
        }
        options: dict[str, Any] = {"return_mean": is_mean, "weighting": weighting}
        noisy = self._noisy(generate) if not is_mean else []
        plain = [name for name in generate if name not in noisy]
        for rows, key in _device_calls(available, seed):
            batch = take(data, rows)
            for names, sample in ((plain, False), (noisy, True)):
                if not names:
                    continue
                key = jax.random.clone(key)  # the same latents for both
                choice: dict[str, Any] = {"cond_mod": given, "gen_mod": names, "N": num}
                decoded = predict(self.model, batch, key, **choice, **options, sample=sample)
                for name, x in decoded.items():
                    values = np.asarray(x if sample else self._mean(name, x))
                    found[name][rows] = self.views[name].to_rows(values)
                    if name in probabilities:
                        probabilities[name][rows] = values[:, 0]
        values = {name: x[:, 0] if is_mean else x for name, x in found.items()}
        return Prediction(values, probabilities, available)

    def sample(self, num: int, seed: int = 0) -> dict[str, Shaped[np.ndarray, "n ..."]]:
        """Draws rows of all modalities from the model; images without noise on every pixel."""
        latent_key, draw_key = jax.random.split(jax.random.key(seed))
        z = generate_from_prior(self.model, latent_key, check_count("num", num))
        noisy = self._noisy(list(self.views))
        plain = [name for name in self.views if name not in noisy]
        rows: dict[str, np.ndarray] = {}
        for names, sample in ((plain, False), (noisy, True)):
            if names:
                key = draw_key if sample else None
                drawn = decode(self.model, z, modalities=names, key=key, sample=sample)
                for name, x in drawn.items():
                    values = x if sample else self._mean(name, x)
                    rows[name] = self.views[name].to_rows(np.asarray(values))
        return {name: rows[name] for name in self.views}

    def _mean(self, name: str, decoded: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the mean of the modality's likelihood, of classes their probabilities."""
        mean = LIKELIHOODS[self.views[name].likelihood].mean
        assert mean is not None, "every built-in likelihood has one"
        return mean(decoded, **self.model.likelihood_params(name))

    def _noisy(self, names: Sequence[str]) -> list[str]:
        """Returns the modalities whose draws have the noise of their likelihood."""
        return [name for name in names if not self.views[name].is_image]


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
