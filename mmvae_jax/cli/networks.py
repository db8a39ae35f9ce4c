"""The networks that a command line can ask for."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from flax import nnx

from mmvae_jax.cli.views import View
from mmvae_jax.networks.images import ConvDecoder, ConvEncoder
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder

#: Pixels a side from which on convolutions are worth it.
MIN_SIDE = 20


class Networks(NamedTuple):
    """What it takes to build the networks of a run again.

    Attributes:
      kind: "conv" for convolutions where a modality is an image of 20 pixels a side or more.
      hidden: widths of an encoder's dense hidden layers, in reverse those of the decoder; of a
        convolutional network the last one.
    """

    kind: Literal["mlp", "conv"]
    hidden: tuple[int, ...]

    def build(
        self, views: Mapping[str, View], latent_dim: int, rngs: nnx.Rngs
    ) -> tuple[dict[str, nnx.Module], dict[str, nnx.Module]]:
        """Encoders and decoders by modality, with initial parameters.

        Raises:
          ValueError: if convolutions have nothing to do, or a width is no width.
        """
        if min(self.hidden, default=0) < 1:
            raise ValueError(f"--hidden is {list(self.hidden)}: give widths of at least 1")
        pictures = [name for name, view in views.items() if _is_large_image(view)]
        if self.kind == "conv" and not pictures:
            shapes = {name: view.shape for name, view in views.items()}
            raise ValueError(
                f"--networks is conv, but no modality is an image of {MIN_SIDE} pixels a side or "
                f"more: rows have the shapes {shapes}"
            )
        encoders: dict[str, nnx.Module] = {}
        decoders: dict[str, nnx.Module] = {}
        for name, view in views.items():
            dim, sigmoid = view.dim, view.is_image and view.has_density
            if self.kind == "conv" and name in pictures:
                width = self.hidden[-1]
                encoders[name] = ConvEncoder(dim, latent_dim, hidden=width, rngs=rngs)
                decoders[name] = ConvDecoder(
                    latent_dim, dim, hidden=width, sigmoid=sigmoid, rngs=rngs
                )
            else:
                encoders[name] = MLPEncoder(dim, latent_dim, hidden=self.hidden, rngs=rngs)
                decoders[name] = MLPDecoder(
                    latent_dim, dim, hidden=self.hidden[::-1], sigmoid=sigmoid, rngs=rngs
                )
        return encoders, decoders


def _is_large_image(view: View) -> bool:
    return view.is_image and min(view.dim[:2]) >= MIN_SIDE
