"""MultiVae's network classes, the networks here that compute the same, and their layers.

The networks for CUB have no counterpart, except ``CubTextDecoderMLP``, and cannot be converted.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from flax import nnx

from mmvae_jax.interop.layers import Layer, Shape, shape_differences, torch_shapes
from mmvae_jax.interop.polymnist import PolyMNISTDenseEncoder
from mmvae_jax.interop.resnet import LateActivationDecoder, LateActivationEncoder
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.networks.polymnist import PolyMNISTDecoder, PolyMNISTEncoder
from mmvae_jax.networks.resnet import GRID as RESNET_GRID
from mmvae_jax.networks.resnet import ResidualBlock
from mmvae_jax.networks.strided import FEATURES, GRID
from mmvae_jax.networks.svhn import SVHNDecoder, SVHNEncoder
from mmvae_jax.networks.two_latents import TwoLatentEncoder

WIDTH = 512  # of every hidden layer of MultiVae's MLPs
FEATURE_MAP = (FEATURES[-1], *GRID)  # between the convolutions and dense layers for PolyMNIST
RESNET_MAP = (256, *RESNET_GRID)  # likewise of the residual networks


class Sizes(NamedTuple):
    """Shapes that the networks of one modality are made for.

    Attributes:
      dim: shape of an example, channels last.
      image: (channels, height, width) of an image, None for anything else.
      shared: size of the shared latent.
      private: size of the private latent, 0 without one.
    """

    dim: Shape
    image: Shape | None
    shared: int
    private: int

    @property
    def latent_dim(self) -> int:
        """Size of the latent ``[u, w]`` of the networks."""
        return self.shared + self.private


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
        differing = shape_differences(torch_shapes(self.layers), found)
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


def _two_latent_mlp_encoder(sizes: Sizes, names: frozenset[str]) -> Network:
    module = _abstract(MLPEncoder, sizes.dim, sizes.latent_dim, hidden=(WIDTH,))
    layers = {"layers.0.0": Layer(module.hidden[0], reads=sizes.image)}
    for kind, num in {"": sizes.shared, "style_": sizes.private}.items():
        layers[f"{kind}embedding"] = Layer(module.loc, num_outputs=num)
        layers[f"{kind}log_var"] = Layer(module.log_var, num_outputs=num)
    return Network(module, layers)


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


def _two_latent_polymnist_encoder(sizes: Sizes, names: frozenset[str]) -> Network:
    module, encoders = _two_latents(PolyMNISTEncoder, sizes)
    layers = {}
    for encoder, trunk, heads in zip(
        encoders, ("encoder_class", "encoder_style"), ("class", "style"), strict=False
    ):
        layers |= _every_second(trunk, encoder.convs)
        layers |= {f"{heads}_mu": Layer(encoder.loc), f"{heads}_logvar": Layer(encoder.log_var)}
    return Network(module, layers, image=(3, 28, 28))


def _resnet_encoder(sizes: Sizes, names: frozenset[str]) -> Network:
    module, encoders = _two_latents(LateActivationEncoder, sizes)
    layers = {}
    for latent, encoder in zip("uw", encoders, strict=False):
        layers[f"conv_img_{latent}"] = Layer(encoder.image)
        layers |= _residual_blocks(f"resnet_{latent}", encoder.blocks)
        layers[f"fc_mu_{latent}"] = Layer(encoder.loc, reads=RESNET_MAP)
        layers[f"fc_lv_{latent}"] = Layer(encoder.log_var, reads=RESNET_MAP)
    return Network(module, layers, image=(3, 28, 28))


def _resnet_decoder(sizes: Sizes, names: frozenset[str]) -> Network:
    module = _abstract(LateActivationDecoder, sizes.latent_dim)
    layers = {"fc": Layer(module.grid, writes=RESNET_MAP), "conv_img.0": Layer(module.image)}
    return Network(module, layers | _residual_blocks("resnet", module.blocks), image=(3, 28, 28))


def _two_latents(encoder: Callable[..., Any], sizes: Sizes) -> tuple[Any, list[Any]]:
    """Returns an encoder of the latents that there are, and its parts: one for each latent."""
    parts = [_abstract(encoder, size) for size in (sizes.shared, sizes.private) if size]
    return (TwoLatentEncoder(*parts) if sizes.private else parts[0]), parts


def _residual_blocks(path: str, blocks: Iterable[ResidualBlock]) -> dict[str, Layer]:
    """Returns the layers of residual blocks that alternate with changes of the image's size."""
    layers = {}
    for i, block in enumerate(blocks):
        layers[f"{path}.{2 * i}.conv_layers.0"] = Layer(block.inner)
        layers[f"{path}.{2 * i}.conv_layers.2"] = Layer(block.outer)
        if block.shortcut is not None:
            layers[f"{path}.{2 * i}.shortcut_layer"] = Layer(block.shortcut)
    return layers


def _every_second(path: str, layers: Any) -> dict[str, Layer]:
    """Returns the layers of a PyTorch Sequential that has an activation after each."""
    return {f"{path}.{2 * i}": Layer(layer) for i, layer in enumerate(layers)}


Maker = Callable[[Sizes, frozenset[str]], Network]

#: Functions of sizes and parameter names that make a network, by side and MultiVae's class.
NETWORKS: Mapping[str, Mapping[str, Maker]] = {
    "encoders": {
        "Encoder_VAE_MLP": _mlp_encoder,
        "Encoder_VAE_SVHN": _svhn_encoder,
        "EncoderConvMMNIST_adapted": _polymnist_encoder,
        "EncoderConvMMNIST": _polymnist_dense_encoder,
        "Encoder_VAE_MLP_Style": _two_latent_mlp_encoder,
        "EncoderConvMMNIST_multilatents": _two_latent_polymnist_encoder,
        "EncoderResnetMMNIST": _resnet_encoder,
    },
    "decoders": {
        "Decoder_AE_MLP": lambda sizes, names: _mlp_decoder(sizes, sigmoid=True),
        "CubTextDecoderMLP": lambda sizes, names: _mlp_decoder(sizes, sigmoid=False),
        "Decoder_VAE_SVHN": _svhn_decoder,
        "DecoderConvMMNIST": _polymnist_decoder,
        "DecoderResnetMMNIST": _resnet_decoder,
    },
}
#: Encoders that have a private latent, and others of the shared latent only.
TWO_LATENTS = ("Encoder_VAE_MLP_Style", "EncoderConvMMNIST_multilatents", "EncoderResnetMMNIST")


def known_networks(side: str, *, has_private: bool) -> dict[str, Maker]:
    """Returns the networks of ``encoders`` or ``decoders`` that serve a model, by class.

    The first one is MultiVae's default.
    """
    makers = NETWORKS[side]
    if side == "decoders" or not has_private:
        return dict(makers)
    return {name: makers[name] for name in TWO_LATENTS}
