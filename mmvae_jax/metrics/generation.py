"""Generation of modalities over a whole data set, and coherence of the generated examples.

Every metric of generated examples can be computed from ``generations``: coherence in this module,
Frechet distances and errors of reconstructions in others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mmvae_jax.batch import AnyBatch, MultimodalArrays, as_arrays, observe
from mmvae_jax.checks import check_count
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.inference import decode, generate
from mmvae_jax.inference.private_latents import components_given
from mmvae_jax.inference.selection import modality_mask, modality_names
from mmvae_jax.inference.weighting import Weighting, importance_weighting, weighted_latents
from mmvae_jax.inputs.keys import as_key
from mmvae_jax.likelihood_settings import MixedLikelihood
from mmvae_jax.maths import counts
from mmvae_jax.maths.likelihoods import SUPPORTS
from mmvae_jax.maths.mixture import draw_mixture
from mmvae_jax.metrics.coherence import Tally, conditional_tallies, joint_tally, subsets
from mmvae_jax.metrics.expert_posteriors import posteriors_of
from mmvae_jax.model import MMVAE, evaluation


@runtime_checkable
class Predictor(Protocol):
    """Interface of a classifier, such as ``Classifier``."""

    def predict(self, x: Float[Array | np.ndarray, "n ..."]) -> Int[Array | np.ndarray, " n"]:
        """Returns the class of every row."""
        ...


class Generation(NamedTuple):
    """All modalities of a batch, generated from some of its modalities.

    Attributes:
      given: names of the given modalities.
      data: generated examples, ``{modality: [b, *input_dim]}`` (see ``as_examples``).
      mask: ``{modality: [b]}``, True where a modality of the real examples is observed. Rows of
        ``data`` are arbitrary where ``is_given`` is False.
      batch: real examples.
    """

    given: tuple[str, ...]
    data: dict[str, Float[Array | np.ndarray, "b ..."]]
    mask: dict[str, Bool[np.ndarray, " b"]]
    batch: MultimodalArrays

    @property
    def is_given(self) -> Bool[np.ndarray, " b"]:
        """True for the examples that have all given modalities."""
        return np.logical_and.reduce([self.mask[name] for name in self.given])


def generations(
    model: MMVAE,
    data: AnyBatch,
    key: PRNGKeyArray,
    *,
    givens: Sequence[tuple[str, ...]] | None = None,
    batch_size: int = 512,
    weighting: Weighting = "mixture",
) -> Iterator[Generation]:
    """Yields all modalities generated from each subset of modalities, batch by batch.

    Protocol: for each subset and example, one z is drawn from the mixture of the subset's experts
    and decoded into every modality. Private latents of the given modalities come from their own
    posteriors, and the others as in ``encode``. The encoders run once per batch.

    With ``weighting="importance"``, z is drawn as ``encode`` does with it.

    Args:
      model: an MMVAE.
      data: examples, complete or incomplete.
      key: randomness.
      givens: subsets of modalities; by default all 2^M - 2 proper ones.
      batch_size: number of examples per batch. The last batch is padded with rows that miss
        everything.
      weighting: use of several given modalities, as in ``encode``.

    Raises:
      ValueError: if a name is unknown, or the data do not fit the model.

    >>> for generation in generations(model, arrays, jax.random.key(0), givens=[("sound",)]):
    ...     generation.given, generation.data["text"].shape[1:]
    (('sound',), (2, 3))
    """
    config, key, setting = model.config, as_key(key), importance_weighting(weighting)
    parts = evaluation(model)
    chosen = subsets(config.modalities) if givens is None else givens
    chosen = [modality_names("givens", given, config) for given in chosen]
    batch_size = check_count("batch_size", batch_size)
    batches = posteriors_of(model, data, batch_size, all_axes=True)
    for number, (batch, (experts, observed)) in enumerate(batches):
        mask = dict(zip(config.modalities, np.asarray(observed), strict=True))
        for index, given in enumerate(chosen):
            place = jax.random.fold_in(jax.random.fold_in(key, number), index)
            available = observed & modality_mask("givens", given, config)
            if setting is None:
                z = _draw(*parts, experts, available, place)
            else:
                seen = observe(config, batch, allow_absent=True)
                drawn, _ = weighted_latents(
                    *parts, seen, available, place, 1, False, given, setting
                )
                z = drawn[:, 0]
            z = jnp.where(available.any(0)[:, None], z, 0)  # classifiers may reject NaN
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
    weighting: Weighting = "mixture",
) -> dict[tuple[str, ...], dict[str, Tally]]:
    """Returns tallies of the conditional coherence for each subset of given modalities.

    Protocol of ``generations``. An example counts if it has the given modalities and the generated
    one. ``averages`` turns the tallies into shares, which ``cross_coherence_mean`` and
    ``coherence_by_size`` summarise. Report the classifiers' accuracy on real examples beside them.

    Args:
      model: an MMVAE.
      data: examples with labels.
      classifiers: classifier by modality; modalities without one are not judged.
      key: randomness.
      num_classes: number of classes.
      givens: subsets of given modalities; by default all 2^M - 2 proper ones.
      batch_size: number of examples per batch.
      weighting: use of several given modalities, as in ``encode``.

    Returns:
      ``{given: {generated: Tally}}``.

    Raises:
      ValueError: if the data have no labels or do not fit the model, or a name is unknown.
    """
    data = as_arrays(data)
    if data.labels is None:
        raise ValueError("labels is None: give the class of every example")
    tallies: dict[tuple[str, ...], dict[str, Tally]] = {}
    for given, generated, mask, batch in generations(
        model, data, key, givens=givens, batch_size=batch_size, weighting=weighting
    ):
        assert batch.labels is not None, "the data set has them"
        seen = {name: judge.predict(generated[name]) for name, judge in classifiers.items()}
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
    draw_latents: Callable[[PRNGKeyArray, int], Float[Array, "n d"]] | None = None,
) -> Tally:
    """Returns the tally of the joint coherence of samples, see ``joint_coherence``.

    Its ``micro`` is the share of samples whose modalities all show one class. Report its
    ``effective_classes`` as well: a model that always shows the same class has the share 1.

    Args:
      model: an MMVAE.
      classifiers: classifier by modality, at least two.
      key: randomness.
      num_samples: number of samples.
      num_classes: number of classes.
      batch_size: number of samples per batch.
      draw_latents: function ``(key, n) -> z [n, d]``, such as ``sample`` of a ``LatentSampler``;
        None for the prior.

    Raises:
      ValueError: if there are fewer than two classifiers, or a number is below 1.
    """
    num_samples = check_count("num_samples", num_samples)
    batch_size = check_count("batch_size", batch_size)
    key = as_key(key)
    none = np.zeros(num_classes, int)
    total = Tally(none, none)
    for number, start in enumerate(range(0, num_samples, batch_size)):
        # The last batch is cut after decoding, so that one compiled program serves all.
        batch_key = jax.random.fold_in(key, number)
        if draw_latents is None:
            decoded = generate(model, batch_key, batch_size)
        else:
            decoded = decode(model, draw_latents(batch_key, batch_size))
        seen = {
            name: judge.predict(as_examples(model.config, name, decoded[name]))[
                : num_samples - start
            ]
            for name, judge in classifiers.items()
        }
        total = total.merge(joint_tally(seen, num_classes=num_classes))
    return total


def as_examples(
    config: MMVAEConfig, name: str, decoded: Float[Array | np.ndarray, "..."]
) -> Float[Array | np.ndarray, "..."]:
    """Returns decoder outputs in the form of examples.

    Logits become one-hot classes or bits, and log means of counts become means, without excess
    zeros.

    >>> as_examples(config, "text", jnp.array([[0.1, 2.0, 0.3], [1.0, 0.0, 0.0]])).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    setting, params = config.likelihood(name)
    if not isinstance(setting, MixedLikelihood):
        return _as_values(setting, decoded, params)
    return jnp.concatenate(
        [
            _as_values(part.likelihood, decoded[..., columns], part.params)
            for part, (_, columns) in zip(setting.parts, setting.columns, strict=True)
        ],
        -1,
    )


def _as_values(
    setting: Any, decoded: Float[Array | np.ndarray, "..."], params: Mapping[str, Any]
) -> Float[Array | np.ndarray, "..."]:
    """Returns the values that x most resembles under a built-in likelihood."""
    if setting == "categorical":
        return jax.nn.one_hot(decoded.argmax(-1), decoded.shape[-1])
    if setting == "bernoulli":
        return (decoded > 0).astype(decoded.dtype)
    if isinstance(setting, str) and SUPPORTS[setting].is_count:
        return counts.mean(jnp.asarray(decoded), library_size=params.get("library_size"))
    return decoded


@partial(jax.jit, static_argnames="graphdef")
def _draw(graphdef, state, experts, available, key):
    """Draws one latent per example given the available modalities."""
    model = nnx.merge(graphdef, state, copy=True)
    components, available = components_given(model, experts, available)
    return draw_mixture(model.config.family, components, available, key, 1)[:, 0]
