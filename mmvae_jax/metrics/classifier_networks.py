"""Networks of classifiers, for examples with entries from -1 to 1."""

import itertools
import math

from flax import nnx
from jaxtyping import Array, Float

from mmvae_jax.networks.cpu_conv import Conv

#: Channels of the convolutions, each of which halves the image.
FEATURES = (32, 64, 128)
#: Smallest side in pixels of an image for which ``auto`` chooses convolutions.
SMALLEST_SIDE = 20

Dim = tuple[int, ...]


class MLP(nnx.Module):
    """Dense layers for examples of any shape, and a linear layer of logits."""

    num_layers = 2
    learning_rate = 1e-3
    weight_decay = 1e-4

    def __init__(self, input_dim: Dim, num_hidden: int, num_classes: int, *, rngs: nnx.Rngs):
        sizes = itertools.pairwise((math.prod(input_dim), *[num_hidden] * self.num_layers))
        self.hidden = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in sizes])
        self.logits = nnx.Linear(num_hidden, num_classes, rngs=rngs)

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n hidden"]:
        """Returns the activations of the last hidden layer."""
        x = x.reshape(len(x), -1)
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        return x

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n classes"]:
        """Returns the logits."""
        return self.logits(self.features(x))


class ConvNet(MLP):
    """Three strided convolutions, one dense layer, and a linear layer of logits."""

    num_layers = 1
    learning_rate = 2e-3
    weight_decay = 0.1  # with less, it overfits

    def __init__(self, input_dim: Dim, num_hidden: int, num_classes: int, *, rngs: nnx.Rngs):
        height, width, channels = input_dim
        sizes = itertools.pairwise((channels, *FEATURES))
        self.convs = nnx.List([Conv(a, b, (3, 3), strides=2, rngs=rngs) for a, b in sizes])
        shrunk = 2 ** len(FEATURES)
        left = (-(-height // shrunk), -(-width // shrunk), FEATURES[-1])
        super().__init__(left, num_hidden, num_classes, rngs=rngs)

    def features(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hidden"]:
        """Returns the activations of the dense layer."""
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return super().features(x)


NETWORKS = {"mlp": MLP, "conv": ConvNet}


def choose(network: str, input_dim: Dim) -> str:
    """Returns the key of ``NETWORKS`` for a ``network`` argument of ``train_classifier``.

    Raises:
      ValueError: if there is no such network, or it does not suit the examples.
    """
    is_image = len(input_dim) == 3
    if network == "auto":
        return "conv" if is_image and min(input_dim[:2]) >= SMALLEST_SIDE else "mlp"
    if network not in NETWORKS or (network == "conv" and not is_image):
        raise ValueError(
            f"network is {network!r}, for rows of shape {input_dim}: choose 'auto', 'mlp' or, for "
            "images [h, w, c], 'conv'"
        )
    return network
