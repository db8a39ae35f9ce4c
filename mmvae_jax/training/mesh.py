"""Device meshes and the sharding of a train state."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from mmvae_jax.batch import AnyBatch
from mmvae_jax.maths.collectives import Shards

DATA, PARTICLE = AXES = ("data", "particle")
#: Smaller arrays stay whole on every device: gathering them costs more than the memory saves.
MIN_SHARDED_SIZE = 2**14


def make_mesh(
    data: int | None = None, particle: int = 1, *, devices: Sequence[Any] | None = None
) -> Mesh:
    """Returns a mesh of devices, with one axis for examples and one for particles.

    Args:
      data: number of devices on the axis ``data``; by default all.
      particle: number of devices that share the K particles of the same examples, for large K. The
        encoders run on each of these devices.
      devices: devices of the mesh; by default all, those of other processes included.

    Raises:
      ValueError: if there are not ``data * particle`` devices, or not a multiple of ``particle``.

    >>> mesh = mm.make_mesh(devices=jax.devices()[:1])
    >>> mesh.axis_names, mesh.size
    (('data', 'particle'), 1)
    """
    devices = jax.devices() if devices is None else devices
    num = len(devices)
    if particle < 1 or num % particle:
        raise ValueError(f"particle is {particle}: give a divisor of the {num} devices")
    data = num // particle if data is None else data
    if data < 1 or data * particle != num:
        raise ValueError(
            f"data is {data} and particle {particle}, but there are {num} devices: their product "
            "must be that number (or give devices=jax.devices()[:n])"
        )
    shape = (data, particle)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


class Layout(NamedTuple):
    """The sharding of a run's arrays over a mesh; static.

    Attributes:
      mesh: mesh from ``make_mesh``.
      fsdp: True to shard large parameters and their optimizer state over the axis ``data`` between
        steps; otherwise each device has a copy.
    """

    mesh: Mesh
    fsdp: bool = False

    def spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        """Returns the axis to shard an array of the state over: the longest possible, or none."""
        parts = self.mesh.shape[DATA]
        if not self.fsdp or parts == 1 or math.prod(shape) < MIN_SHARDED_SIZE:
            return PartitionSpec()
        sizes = [size if size % parts == 0 else 0 for size in shape]
        axis = int(np.argmax(sizes))
        return PartitionSpec(*[None] * axis, DATA) if sizes[axis] else PartitionSpec()

    def sharding(self, x: Array) -> NamedSharding:
        """Returns the sharding of an array of the state."""
        return NamedSharding(self.mesh, self.spec(x.shape))

    def constrain(self, state: PyTree) -> PyTree:
        """Constrains the arrays of a state computed inside ``jax.jit`` to their sharding."""
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, self.sharding(x)), state)

    def place(self, state: PyTree) -> PyTree:
        """Returns sharded copies of a state's arrays, which are the same on every process."""
        return jax.tree.map(lambda x: _copy_to(x, self.sharding(x)), state)


def shard_batch(batch: Any, mesh: Mesh, *, axis: int = 0) -> Any:
    """Puts a batch on the devices of a mesh, its examples sharded over the axis ``data``.

    Args:
      batch: a pytree of arrays ``[b, ...]``, such as a ``Batch``. With several processes each gives
        its own part of the examples, and those of the first process come first.
      mesh: mesh from ``make_mesh``.
      axis: axis of the examples in every array.

    Returns:
      The same pytree of ``jax.Array`` with the examples of all processes.

    Raises:
      ValueError: if the devices cannot share the examples equally.

    >>> mesh = mm.make_mesh(devices=jax.devices()[:1])
    >>> mm.shard_batch(batch, mesh).data["sound"].shape
    (5, 4)
    """
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA))
    num_processes = jax.process_count()
    for x in jax.tree.leaves(batch):
        _check_examples(np.shape(x)[axis] * num_processes, mesh.shape[DATA])
    if num_processes == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )


def gather(state: PyTree) -> PyTree:
    """Returns whole copies of a state's arrays, on the default device of every process."""
    return jax.tree.map(_whole, state)


def over_mesh(
    layout: Layout, function: Callable[..., Any], *, differentiated: bool = False
) -> Callable[[PyTree, PyTree, AnyBatch, PyTree], Any]:
    """Spreads a function of parameters and a batch over all devices of a mesh.

    Each device works on its own examples and particles with whole parameters, which are gathered
    first if they are sharded. The sum of the gradients is the only other large exchange.

    Args:
      layout: sharding of parameters and gradients.
      function: per-device function ``(params, rest, batch, shared, shards) -> result``. It must
        return the same value on every device.
      differentiated: True if the result is a pair whose second part is the device's part of the
        gradient for the parameters. The spread function then returns the whole gradient.

    Returns:
      The function ``(params, rest, batch, shared) -> result``, where every device receives all of
      ``shared``.

    Raises:
      ValueError: when called, if the devices cannot share the examples equally.
    """
    mesh, replicated = layout.mesh, PartitionSpec()
    # A single device has nothing to exchange, and a program need not say so.
    shards = Shards(*(axis if mesh.shape[axis] > 1 else None for axis in AXES))

    def on_all(params: PyTree, rest: PyTree, batch: AnyBatch, shared: PyTree) -> Any:
        for x in jax.tree.leaves(batch):
            _check_examples(len(x), mesh.shape[DATA])
        specs = jax.tree.map(lambda p: layout.spec(p.shape), params)

        def on_one(params: PyTree, rest: PyTree, batch: AnyBatch, shared: PyTree) -> Any:
            result = function(jax.tree.map(_gather, params, specs), rest, batch, shared, shards)
            if not differentiated:
                return result
            value, grads = result
            return value, jax.tree.map(partial(_sum, shards), grads, specs)

        return jax.shard_map(
            on_one,
            mesh=mesh,
            in_specs=(specs, replicated, PartitionSpec(DATA), replicated),
            out_specs=(replicated, specs) if differentiated else replicated,
            check_vma=False,  # gradients are summed here, once; the check would add its own sums
        )(params, rest, batch, shared)

    return on_all


def _gather(x: Array, spec: PartitionSpec) -> Array:
    return jax.lax.all_gather(x, DATA, axis=len(spec) - 1, tiled=True) if spec else x


def _sum(shards: Shards, grad: Array, spec: PartitionSpec) -> Array:
    """Returns each device's part of the sum over all devices."""
    if not spec:
        return shards.sum_of_parts(grad)
    own = jax.lax.psum_scatter(grad, DATA, scatter_dimension=len(spec) - 1, tiled=True)
    return shards._replace(data=None).sum_of_parts(own)


def _check_examples(num: int, parts: int) -> None:
    if num % parts:
        raise ValueError(
            f"batch has {num} examples, which {parts} devices cannot share: give a multiple of "
            f"{parts}, or another mesh"
        )


def _whole(x: Array) -> Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_whole(jax.random.key_data(x)), impl=jax.random.key_impl(x))
    if not x.is_fully_addressable and not x.is_fully_replicated:
        x = multihost_utils.process_allgather(x, tiled=True)
    return jnp.array(np.asarray(x))


def _copy_to(x: Array, sharding: NamedSharding) -> Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        bits = _copy_to(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(x))
    values = np.asarray(x)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])
