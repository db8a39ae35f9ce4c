"""MultiVae's network classes, the networks here that compute the same, and their layers.

Some classes have no counterpart, and their models cannot be converted: the residual networks for
PolyMNIST (``EncoderResnetMMNIST``, ``DecoderResnetMMNIST``), whose blocks apply the activation
after each convolution and not before it, and the networks for CUB other than ``CubTextDecoderMLP``.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flax import nnx

from mmvae_jax.interop.layers import Layer, Shape, torch_shapes
from mmvae_jax.interop.polymnist import PolyMNISTDenseEncoder
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.networks.polymnist import PolyMNISTDecoder, PolyMNISTEncoder
from mmvae_jax.networks.strided import FEATURES, GRID
from mmvae_jax.networks.svhn import SVHNDecoder, SVHNEncoder

WIDTH = 512  # of every hidden layer of MultiVae's MLPs
FEATURE_MAP = (FEATURES[-1], *GRID)  # between the convolutions and dense layers for PolyMNIST


class Sizes(NamedTuple):
    """Shapes that the networks of one modality are made for.

    Attributes:
      dim: shape of an example, channels last.
      image: (channels, height, width) of an image, None for anything else.
      latent_dim: size d of the latent.
    """

    dim: Shape
    image: Shape | None
    latent_dim: int


class Network(NamedTuple):
    """A network whose parameters are still to be filled in.

    Attributes:
      module: network with shapes in place of parameters.
      layers: layers that hold the parameters, by path of the PyTorch layer.
      image: (channels, height, width) that the network is made for; None for any shape.
    """

    module: nnx.Module
    layers: Mapping[str, Layer]
    image: Shape | None = None

    def differences(self, sizes: Sizes, found: Mapping[str, Shape]) -> list[str]:
        """Returns the differences between the network and an image and PyTorch's parameters."""
        expected = torch_shapes(self.layers)
        differing = [
            f"{name} is {found.get(name, 'missing')}, expected {expected.get(name, 'none')}"
            for name in {**expected, **found}
            if found.get(name) != expected.get(name)
        ]
        if self.image not in (None, sizes.image):
            differing.append(f"input_dims is {sizes.image or sizes.dim}, expected {self.image}")
        return differing


def _abstract(network: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Returns the module with shapes in place of parameters."""
    return nnx.eval_shape(lambda: network(*args, **options, rngs=nnx.Rngs(0)))


def _mlp_encoder(sizes: Sizes, names: frozenset[str]) -> Network:
    # Names such as layers.1.0.weight give the number of hidden layers.
    depth = sum(name.startswith("layers.") and name.endswith(".weight") for name in names)
    hidden = (WIDTH,) * max(depth, 1)
    module = _abstract(MLPEncoder, sizes.dim, sizes.latent_dim, hidden=hidden)
    layers = {f"layers.{i}.0": Layer(layer) for i, layer in enumerate(module.hidden)}
    layers["layers.0.0"] = Layer(module.hidden[0], reads=sizes.image)
    heads = {"embedding": Layer(module.loc), "log_var": Layer(module.log_var)}
    return Network(module, layers | heads)


def _mlp_decoder(sizes: Sizes, *, sigmoid: bool) -> Network:
    module = _abstract(MLPDecoder, sizes.latent_dim, sizes.dim, hidden=(WIDTH,), sigmoid=sigmoid)
    layers = {
        "layers.0.0": Layer(module.hidden[0]),
        "layers.1.0": Layer(module.out, writes=sizes.image),
    }
    return Network(module, layers)


def _svhn_encoder(sizes: Sizes, names: frozenset[str]) -> Network:
    module = _abstract(SVHNEncoder, sizes.latent_dim)
    heads = {"c1": Layer(module.loc), "c2": Layer(module.log_var)}
    return Network(module, _every_second("enc", module.convs) | heads, image=(3, 32, 32))


def _svhn_decoder(sizes: Sizes, names: frozenset[str]) -> Network:
    module = _abstract(SVHNDecoder, sizes.latent_dim)
    return Network(module, _every_second("dec", [module.grid, *module.convs]), image=(3, 32, 32))


def _polymnist_encoder(sizes: Sizes, names: frozenset[str]) -> Network:
    module = _abstract(PolyMNISTEncoder, sizes.latent_dim)
    heads = {"class_mu": Layer(module.loc), "class_logvar": Layer(module.log_var)}
    layers = _every_second("shared_encoder", module.convs) | heads
    return Network(module, layers, image=(3, 28, 28))


def _polymnist_dense_encoder(sizes: Sizes, names: frozenset[str]) -> Network:
    has_bias = "class_mu.bias" in names
    module = _abstract(PolyMNISTDenseEncoder, sizes.latent_dim, bias=has_bias)
    layers = _every_second("shared_encoder", module.convs)
    layers["shared_encoder.7"] = Layer(module.dense, reads=FEATURE_MAP)
    heads = {"class_mu": Layer(module.loc), "class_logvar": Layer(module.log_var)}
    return Network(module, layers | heads, image=(3, 28, 28))


def _polymnist_decoder(sizes: Sizes, names: frozenset[str]) -> Network:
    module = _abstract(PolyMNISTDecoder, sizes.latent_dim)
    layers = {"decoder.0": Layer(module.grid, writes=FEATURE_MAP)}
    convs = {f"decoder.{3 + 2 * i}": Layer(conv) for i, conv in enumerate(module.convs)}
    return Network(module, layers | convs, image=(3, 28, 28))


def _every_second(path: str, layers: Any) -> dict[str, Layer]:
    """Returns the layers of a PyTorch Sequential that has an activation after each."""
    return {f"{path}.{2 * i}": Layer(layer) for i, layer in enumerate(layers)}


#: Functions of sizes and parameter names that make a network, by side and MultiVae's class.
NETWORKS: Mapping[str, Mapping[str, Callable[[Sizes, frozenset[str]], Network]]] = {
    "encoders": {
        "Encoder_VAE_MLP": _mlp_encoder,
        "Encoder_VAE_SVHN": _svhn_encoder,
        "EncoderConvMMNIST_adapted": _polymnist_encoder,
        "EncoderConvMMNIST": _polymnist_dense_encoder,
    },
    "decoders": {
        "Decoder_AE_MLP": lambda sizes, names: _mlp_decoder(sizes, sigmoid=True),
        "CubTextDecoderMLP": lambda sizes, names: _mlp_decoder(sizes, sigmoid=False),
        "Decoder_VAE_SVHN": _svhn_decoder,
        "DecoderConvMMNIST": _polymnist_decoder,
    },
}

#: Classes that MultiVae uses for a model that was given no networks.
DEFAULTS: Mapping[str, str] = {"encoders": "Encoder_VAE_MLP", "decoders": "Decoder_AE_MLP"}
