"""What a model generates, batch by batch, and its coherence over a whole data set.

``generations`` is what every metric of generated examples can be computed from: coherence here,
Frechet distances, errors of reconstructions and correlations in the modules of their names.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mmvae_jax.batch import AnyBatch, MultimodalArrays, as_arrays
from mmvae_jax.checks import check_count
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.inference import decode, draw_mixture, generate, modality_mask, modality_names
from mmvae_jax.metrics.coherence import (
    Tally,
    conditional_tallies,
    joint_tally,
    subsets,
)
from mmvae_jax.metrics.posteriors import posteriors_of
from mmvae_jax.model import MMVAE


@runtime_checkable
class Predictor(Protocol):
    """What tells the class of examples, such as a ``Classifier``."""

    def predict(self, x: Float[Array | np.ndarray, "n ..."]) -> Int[Array | np.ndarray, " n"]:
        """The class of every row."""
        ...


class Generation(NamedTuple):
    """Examples of all modalities, generated from some of those of a batch.

    Attributes:
      given: what they were generated from.
      data: ``{modality: [b, *input_dim]}``, as examples look (``as_examples``).
      mask: ``{modality: [b]}``, where each modality of the real examples was observed. Where one
        of ``given`` was not (``is_given``), ``data`` means nothing.
      batch: the real examples.
    """

    given: tuple[str, ...]
    data: dict[str, Float[Array | np.ndarray, "b ..."]]
    mask: dict[str, Bool[np.ndarray, " b"]]
    batch: MultimodalArrays

    @property
    def is_given(self) -> Bool[np.ndarray, " b"]:
        """Where all of ``given`` was observed."""
        return np.logical_and.reduce([self.mask[name] for name in self.given])


def generations(
    model: MMVAE,
    data: AnyBatch,
    key: PRNGKeyArray,
    *,
    givens: Sequence[tuple[str, ...]] | None = None,
    batch_size: int = 512,
) -> Iterator[Generation]:
    """Generates all modalities from subsets of those observed, the subsets in turn.

    Protocol: for each subset and example one z is drawn from the mixture of the subset's experts,
    and decoded into every modality; all subsets share one compiled program. The encoders run once
    for each batch.

    Args:
      model: an MMVAE.
      data: examples, complete or not.
      key: randomness.
      givens: the subsets; by default all of 1 to M - 1 modalities, of which there are 2^M - 2.
      batch_size: examples at a time. The last batch is filled up with rows of which nothing is
        observed.

    Raises:
      ValueError: for unknown names, or data that do not fit.

    >>> for generation in generations(model, arrays, jax.random.key(0), givens=[("sound",)]):
    ...     generation.given, generation.data["text"].shape[1:]
    (('sound',), (2, 3))
    """
    config = model.config
    chosen = subsets(config.modalities) if givens is None else givens
    chosen = [modality_names("givens", given, config) for given in chosen]
    check_count("batch_size", batch_size)
    for number, (batch, (experts, observed)) in enumerate(posteriors_of(model, data, batch_size)):
        mask = dict(zip(config.modalities, np.asarray(observed), strict=True))
        for index, given in enumerate(chosen):
            place = jax.random.fold_in(jax.random.fold_in(key, number), index)
            available = observed & modality_mask("givens", given, config)
            z = _draw(config, experts, available, place, 1)[:, 0]
            z = jnp.where(available.any(0)[:, None], z, 0)  # classifiers may refuse NaN
            decoded = decode(model, z).items()
            generated = {name: as_examples(config, name, x) for name, x in decoded}
            yield Generation(given, generated, mask, batch)


def measure_coherence(
    model: MMVAE,
    data: AnyBatch,
    classifiers: Mapping[str, Predictor],
    key: PRNGKeyArray,
    *,
    num_classes: int,
    givens: Sequence[tuple[str, ...]] | None = None,
    batch_size: int = 512,
) -> dict[tuple[str, ...], dict[str, Tally]]:
    """Returns how often each modality, generated from others or itself, shows the right class.

    Protocol of ``generations``. An example counts where it has all that is given and the modality
    that is generated. ``averages`` makes shares of the result, which ``cross_coherence_mean`` and
    ``coherence_by_size`` sum up; print the classifiers' accuracy on real examples beside them.

    Args:
      model: an MMVAE.
      data: examples with labels.
      classifiers: one of each modality that is to be looked at.
      key: randomness.
      num_classes: how many classes there are.
      givens: subsets to generate from; all of 1 to M - 1 modalities by default.
      batch_size: examples at a time.

    Returns:
      ``{given: {generated: Tally}}``.

    Raises:
      ValueError: if there are no labels, for unknown names, or data that do not fit.
    """
    data = as_arrays(data)
    if data.labels is None:
        raise ValueError("labels is None: coherence needs the class of every example")
    tallies: dict[tuple[str, ...], dict[str, Tally]] = {}
    for given, generated, mask, batch in generations(
        model, data, key, givens=givens, batch_size=batch_size
    ):
        assert batch.labels is not None, "the data set has them"
        seen = {name: who.predict(generated[name]) for name, who in classifiers.items()}
        counted = conditional_tallies(
            {given: seen}, batch.labels, num_classes=num_classes, mask=mask
        )
        before = tallies.setdefault(given, {})
        for name, part in counted[given].items():
            before[name] = before[name].merge(part) if name in before else part
    return tallies


def measure_joint_coherence(
    model: MMVAE,
    classifiers: Mapping[str, Predictor],
    key: PRNGKeyArray,
    *,
    num_samples: int,
    num_classes: int,
    batch_size: int = 512,
) -> Tally:
    """Returns how often all modalities decoded from one z of the prior show one class.

    Args:
      model: an MMVAE.
      classifiers: one of each modality that is to be looked at, two at least.
      key: randomness.
      num_samples: draws from the prior.
      num_classes: how many classes there are.
      batch_size: draws at a time.

    Raises:
      ValueError: for fewer than two classifiers, or counts below 1.
    """
    check_count("num_samples", num_samples)
    check_count("batch_size", batch_size)
    none = np.zeros(num_classes, int)
    total = Tally(none, none)
    for number, start in enumerate(range(0, num_samples, batch_size)):
        # The last batch is as large as the others, for which the program is compiled, and cut.
        decoded = generate(model, jax.random.fold_in(key, number), batch_size)
        seen = {
            name: who.predict(as_examples(model.config, name, decoded[name]))[: num_samples - start]
            for name, who in classifiers.items()
        }
        total = total.merge(joint_tally(seen, num_classes=num_classes))
    return total


def as_examples(
    config: MMVAEConfig, name: str, decoded: Float[Array | np.ndarray, "..."]
) -> Float[Array | np.ndarray, "..."]:
    """Returns what a decoder's output looks like as an example: logits are decided.

    >>> as_examples(config, "text", jnp.array([[0.1, 2.0, 0.3], [1.0, 0.0, 0.0]])).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    likelihood, _ = config.likelihood(name)
    if likelihood == "categorical":
        return jax.nn.one_hot(decoded.argmax(-1), decoded.shape[-1])
    if likelihood == "bernoulli":
        return (decoded > 0).astype(decoded.dtype)
    return decoded


_draw = partial(jax.jit, static_argnames=("config", "N"))(draw_mixture)
