"""The layers of InceptionV3 as data, which one walk counts and another one computes.

Szegedy et al.'s (2016, "Rethinking the Inception architecture") but for two traits of the training
run behind the Frechet inception distance: averages leave padding out, and the last block takes a
maximum where the others average.
"""

import functools
from collections.abc import Callable, Generator, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


class Conv(NamedTuple):
    """A convolution, batch normalisation and ReLU; named as in the weights file."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: Literal["SAME", "VALID"] = "SAME"


class Block(NamedTuple):
    """Chains that see the same input; their outputs side by side. Its name is a prefix."""

    prefix: str
    branches: tuple[tuple[Any, ...], ...]


def _max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n i j c"]:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")


def _max_around(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")


def _mean_around(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Mean of the 3 x 3 neighbours that there are: padding does not count."""
    window = functools.partial(
        lax.reduce_window,
        init_value=0.0,
        computation=lax.add,
        window_dimensions=(1, 3, 3, 1),
        window_strides=(1, 1, 1, 1),
        padding="SAME",
    )
    return window(x) / window(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


def _block_a(name: str, pooled: int) -> Block:
    branches = (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, (3, 3)),
            Conv("branch3x3dbl_3", 96, (3, 3)),
        ),
        (_mean_around, Conv("branch_pool", pooled)),
    )
    return Block(f"{name}.", branches)


def _block_b(name: str) -> Block:
    branches = (
        (Conv("branch3x3", 384, (3, 3), 2, "VALID"),),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, (3, 3)),
            Conv("branch3x3dbl_3", 96, (3, 3), 2, "VALID"),
        ),
        (_max_pool,),
    )
    return Block(f"{name}.", branches)


def _block_c(name: str, width: int) -> Block:
    branches = (
        (Conv("branch1x1", 192),),
        (
            Conv("branch7x7_1", width),
            Conv("branch7x7_2", width, (1, 7)),
            Conv("branch7x7_3", 192, (7, 1)),
        ),
        (
            Conv("branch7x7dbl_1", width),
            Conv("branch7x7dbl_2", width, (7, 1)),
            Conv("branch7x7dbl_3", width, (1, 7)),
            Conv("branch7x7dbl_4", width, (7, 1)),
            Conv("branch7x7dbl_5", 192, (1, 7)),
        ),
        (_mean_around, Conv("branch_pool", 192)),
    )
    return Block(f"{name}.", branches)


def _block_d(name: str) -> Block:
    branches = (
        (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), 2, "VALID")),
        (
            Conv("branch7x7x3_1", 192),
            Conv("branch7x7x3_2", 192, (1, 7)),
            Conv("branch7x7x3_3", 192, (7, 1)),
            Conv("branch7x7x3_4", 192, (3, 3), 2, "VALID"),
        ),
        (_max_pool,),
    )
    return Block(f"{name}.", branches)


def _block_e(name: str, pool: Callable[[Array], Array]) -> Block:
    def cross(branch: str) -> Block:
        wide, tall = Conv(f"{branch}a", 384, (1, 3)), Conv(f"{branch}b", 384, (3, 1))
        return Block("", ((wide,), (tall,)))

    branches = (
        (Conv("branch1x1", 320),),
        (Conv("branch3x3_1", 384), cross("branch3x3_2")),
        (
            Conv("branch3x3dbl_1", 448),
            Conv("branch3x3dbl_2", 384, (3, 3)),
            cross("branch3x3dbl_3"),
        ),
        (pool, Conv("branch_pool", 192)),
    )
    return Block(f"{name}.", branches)


LAYERS = (
    Conv("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),
    Conv("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID"),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    _max_pool,
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"),
    _max_pool,
    _block_a("Mixed_5b", 32),
    _block_a("Mixed_5c", 64),
    _block_a("Mixed_5d", 64),
    _block_b("Mixed_6a"),
    _block_c("Mixed_6b", 128),
    _block_c("Mixed_6c", 160),
    _block_c("Mixed_6d", 160),
    _block_c("Mixed_6e", 192),
    _block_d("Mixed_7a"),
    _block_e("Mixed_7b", _mean_around),
    _block_e("Mixed_7c", _max_around),
)


def convolutions() -> list[tuple[str, Conv, int]]:
    """Returns all convolutions with their full names and the channels of their inputs."""
    return list(_walk(LAYERS, "", 3))


def _walk(chain: tuple[Any, ...], prefix: str, channels: int) -> Generator[Any, None, int]:
    """Yields the convolutions of a chain; its value is the number of channels that come out."""
    for layer in chain:
        if isinstance(layer, Conv):
            yield prefix + layer.name, layer, channels
            channels = layer.features
        elif isinstance(layer, Block):
            outputs = []
            for branch in layer.branches:
                outputs.append((yield from _walk(branch, prefix + layer.prefix, channels)))
            channels = sum(outputs)
    return channels


def apply_layers(
    chain: tuple[Any, ...], params: Mapping[str, Any], x: Float[Array, "n h w c"], prefix: str = ""
) -> Float[Array, "n i j f"]:
    """Returns what a chain of layers makes of feature maps."""
    for layer in chain:
        if isinstance(layer, Conv):
            x = _convolve(layer, params[prefix + layer.name], x)
        elif isinstance(layer, Block):
            inner = prefix + layer.prefix
            outputs = [apply_layers(branch, params, x, inner) for branch in layer.branches]
            x = jnp.concatenate(outputs, axis=-1)
        else:
            x = layer(x)
    return x


def _convolve(conv: Conv, params: tuple[Array, Array], x: Array) -> Array:
    kernel, bias = params
    strides, names = (conv.stride, conv.stride), ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(
        x, kernel, strides, conv.padding, dimension_numbers=names, precision="highest"
    )
    return jax.nn.relu(y + bias.reshape(1, 1, 1, -1))
