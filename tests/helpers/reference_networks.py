"""The networks of the reference values: one tanh layer, and linear heads."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

HEADS = {"loc": ("loc", "wloc"), "logvar": ("logvar", "wlogvar")}


class Encoder(nnx.Module):
    """Heads of the shared and, where the reference has them, of the private latent."""

    def __init__(self, weights, prefix):
        names = ("hidden", *(name for heads in HEADS.values() for name in heads))
        self.layers = nnx.Dict(
            {
                name: linear(weights, f"{prefix}.{name}")
                for name in names
                if f"{prefix}.{name}.weight" in weights
            }
        )

    def __call__(self, x):
        h = jnp.tanh(self.layers["hidden"](x.reshape(x.shape[0], -1)))
        return tuple(
            jnp.concatenate([self.layers[name](h) for name in heads if name in self.layers], -1)
            for heads in HEADS.values()
        )


class Decoder(nnx.Module):
    def __init__(self, weights, prefix, dim):
        self.layers = nnx.Dict(
            {name: linear(weights, f"{prefix}.{name}") for name in ("hidden", "out")}
        )
        self.dim = dim

    def __call__(self, z):
        x = self.layers["out"](jnp.tanh(self.layers["hidden"](z)))
        return x.reshape(z.shape[0], *self.dim)


def linear(weights, prefix):
    """An nnx.Linear with the reference's weights; torch keeps kernels transposed."""
    kernel, bias = weights[f"{prefix}.weight"].T, weights[f"{prefix}.bias"]
    layer = nnx.Linear(*kernel.shape, dtype=kernel.dtype, rngs=nnx.Rngs(0))
    layer.kernel, layer.bias = nnx.Param(jnp.asarray(kernel)), nnx.Param(jnp.asarray(bias))
    return layer


def networks(weights, dims):
    """Encoders and decoders with the reference's weights."""
    return (
        {m: Encoder(weights, f"encoders.{m}") for m in dims},
        {m: Decoder(weights, f"decoders.{m}", dim) for m, dim in dims.items()},
    )


def torch_gradients(grads):
    """Our gradients of the networks under the reference's names."""
    flat = {}
    for side in ("encoders", "decoders"):
        for m, network in nnx.to_pure_dict(grads)[side].items():
            for name, layer in network["layers"].items():
                flat[f"{side}.{m}.{name}.weight"] = layer["kernel"].T
                flat[f"{side}.{m}.{name}.bias"] = layer["bias"]
    return flat


def group(values, prefix):
    """The values whose names begin with the prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def load(file, dtype):
    """The arrays of a file, floats in this type."""
    with np.load(file) as stored:
        values = {key: stored[key] for key in stored.files}
    return {k: v.astype(dtype) if v.dtype == np.float64 else v for k, v in values.items()}
