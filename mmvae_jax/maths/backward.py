"""Choice of the particles that a gradient is computed from.

Every term of every estimator's gradient carries a factor ``w~``, and few particles carry most of
it. A backward pass other than the dense one gives each particle a coefficient in place of ``w~``,
zero for most, and visits only the others.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mmvae_jax.checks import check_count

KINDS = ("auto", "dense", "sparse", "sampled", "residual")
Keys = Array | None  # a random key for each example
#: Number of particles in a batch from which ``auto`` is sparse on CPU, measured in
#: docs/benchmarks.md ("Dense or sparse").
MIN_PARTICLES_ON_CPU = 512
#: The same number on other devices. On an H100 dense was as fast as sparse or faster in every case
#: measured, from 1,600 to 25,600 particles; beyond that, sparse bounds the memory of a step.
MIN_PARTICLES_ELSEWHERE = 2**15


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Backward:
    """The choice of particles for the gradient of a bound; static.

    Args:
      kind: one of

        - ``dense``: one pass forward and one backward over all particles. Memory grows with M^2 K.
        - ``sparse``: forward over all particles in chunks that keep nothing, then forward and
          backward over the smallest set of each group's particles that holds ``1 - tolerance`` of
          its weight (a group: the particles of an expert, all of an example for a tight bound).
        - ``sampled``: backward over ``num_backward`` particles of each group, drawn with
          probability ``w~``. Unbiased for the dense gradient, and noisier (Burda et al. 2016 draw
          one).
        - ``residual``: the set of ``sparse``, and one particle drawn from the rest of the group,
          which stands for all of it. Unbiased for the dense gradient.
        - ``auto``: ``sparse`` for K of at least 3 and many particles M K b in a batch, else
          ``dense``. On CPU 512 are many, because sparse is faster from there on. On other devices
          32,768 are, because sparse bounds the memory from there on. Always ``dense`` for decoders
          that draw random numbers, which other kinds refuse.

      tolerance: share of each group's weight that ``sparse`` may drop.
      chunk: particles per decoder call of the kinds other than dense. By default 64 on CPU, whose
        caches it fits, 256 there for decoders without convolutions, and 4096 elsewhere.
      num_backward: number of particles that ``sampled`` draws from each group.

    Raises:
      ValueError: naming the field, its value and the fix.

    >>> state = mm.create_train_state(model, tx, key=jax.random.key(0))
    >>> state, metrics = mm.train_step(state, batch, backward=mm.Backward("sampled"))
    >>> round(float(metrics["backward_share"]), 3)  # one of K = 3
    0.333
    """

    kind: str = "auto"
    tolerance: float = 1e-4
    chunk: int | None = None
    num_backward: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"backward is {self.kind!r}: choose one of {list(KINDS)}")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance is {self.tolerance!r}: give a share from 0 to below 1")
        if self.chunk is not None:
            check_count("chunk", self.chunk)
        check_count("num_backward", self.num_backward)

    def resolve(
        self,
        num_experts: int,
        num_particles: int,
        num_examples: int,
        *,
        tile_size: int,
        is_random: bool,
    ) -> "Backward":
        """Returns the settings with every choice made for this problem and platform.

        Args:
          num_experts: number M of experts.
          num_particles: number K of particles per expert.
          num_examples: number of examples, of all devices together.
          tile_size: number of particles per decoder call where ``chunk`` is None.
          is_random: True if the decoders draw random numbers.

        Raises:
          ValueError: for decoders that draw random numbers and a kind other than dense.
        """
        kind = self.kind
        if kind == "auto":
            pays = _sparse_pays(num_experts, num_particles, num_examples)
            kind = "sparse" if pays and not is_random else "dense"
        if kind != "dense" and is_random:
            raise ValueError(
                f"backward is {kind!r}, but the decoders draw random numbers, which differ between "
                "a pass forward and a pass backward: use backward='dense' or 'auto'"
            )
        return dataclasses.replace(self, kind=kind, chunk=self.chunk or tile_size)

    @property
    def tile_size(self) -> int:
        """Number of particles per decoder call, of resolved settings."""
        assert self.chunk is not None, "set by resolve"
        return self.chunk


def _sparse_pays(num_experts: int, num_particles: int, num_examples: int) -> bool:
    """Returns True where a sparse backward pass is faster than a dense one, or saves memory."""
    # The decoders run num_experts^2 num_particles num_examples times, of which the sparse pass
    # saves a part of the backward work: few particles are not worth its loops.
    is_on_cpu = jax.default_backend() == "cpu"
    least = MIN_PARTICLES_ON_CPU if is_on_cpu else MIN_PARTICLES_ELSEWHERE
    return num_particles >= 3 and num_experts * num_particles * num_examples >= least


def coefficients(
    backward: Backward,
    w: Float[Array, "m k b"],
    key: PRNGKeyArray | None,
    numbers: Int[Array, " b"],
    *,
    joint: bool,
) -> Float[Array, "m k b"]:
    """Returns the coefficient of each particle in place of its weight.

    Args:
      backward: resolved settings.
      w: normalised weights.
      key: randomness of ``sampled`` and ``residual``.
      numbers: numbers of the examples; the draws of an example depend on key and number only.
      joint: True if all particles of an example are one group, as in a tight bound.
    """
    grouped = w.reshape(1, -1, w.shape[-1]) if joint else w
    keys = None if key is None else jax.vmap(partial(jax.random.fold_in, key))(numbers)
    return SELECT[backward.kind](backward, grouped, keys).reshape(w.shape)


def _dense(backward: Backward, w: Array, keys: Keys) -> Array:
    return w


def _sparse(backward: Backward, w: Array, keys: Keys) -> Float[Array, "g k b"]:
    """Returns the weights without the smallest ones, at most ``tolerance`` of each group."""
    return jnp.where(w > _threshold(w, backward.tolerance), w, 0)


def _threshold(w: Float[Array, "g k b"], tolerance: float) -> Float[Array, "g 1 b"]:
    """Returns the largest number up to which a group's weights add up to at most the tolerance.

    Bisection over the bits of floating-point numbers, which have the order of the numbers, is
    exact and takes less memory and time than sorting.
    """
    num_bits = jnp.finfo(w.dtype).bits
    bits = jnp.dtype(f"int{num_bits}")

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        number = jax.lax.bitcast_convert_type(middle, w.dtype)
        fits = jnp.where(w <= number, w, 0).sum(1, keepdims=True) <= tolerance
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

    zero = jnp.zeros((w.shape[0], 1, w.shape[2]), bits)
    two = jax.lax.bitcast_convert_type(jnp.full(zero.shape, 2, w.dtype), bits)
    low, _ = jax.lax.fori_loop(0, num_bits - 2, halve, (zero, two))
    return jax.lax.bitcast_convert_type(low, w.dtype)


def _sampled(backward: Backward, w: Array, keys: Keys) -> Float[Array, "g k b"]:
    return _draws(w, keys, backward.num_backward)


def _residual(backward: Backward, w: Array, keys: Keys) -> Float[Array, "g k b"]:
    kept = _sparse(backward, w, keys)
    rest = w - kept
    return kept + _draws(rest, keys, 1) * rest.sum(1, keepdims=True)


def _draws(w: Float[Array, "g k b"], keys: Keys, num: int) -> Float[Array, "g k b"]:
    """Returns each particle's share of ``num`` draws with probability ``w``; 0 where w is 0."""
    if keys is None:
        raise ValueError("key is None: backward='sampled' and 'residual' draw particles from it")

    def of_example(key: PRNGKeyArray, w: Float[Array, "g k"]) -> Float[Array, "g k"]:
        picked = jax.random.categorical(key, jnp.log(w), axis=1, shape=(num, len(w)))
        group = jnp.arange(len(w))[None]
        return jnp.zeros_like(w).at[group, picked].add(1 / num)

    counts = jax.vmap(of_example, in_axes=(0, 2), out_axes=2)(keys, w)
    return jnp.where(w > 0, counts, 0)


SELECT: dict[str, Callable[[Backward, Array, Keys], Array]] = {
    "dense": _dense,
    "sparse": _sparse,
    "sampled": _sampled,
    "residual": _residual,
}
