"""The networks of models of tables."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from flax import nnx

from mmvae_jax.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from mmvae_jax.tables.mixed_view import AnyView

NetworkKind = Literal["mlp", "conv"]
#: Fewest pixels a side of an image for convolutions.
MIN_SIDE = 20


class NetworkSettings(NamedTuple):
    """Settings from which the networks of a run are built, and built again.

    Attributes:
      kind: "conv" for convolutions on images of 20 pixels a side or more, "mlp" for none.
      hidden: widths of an encoder's dense hidden layers; a decoder has them in reverse, and a
        convolutional network has the last.
    """

    kind: NetworkKind
    hidden: tuple[int, ...]

    def build(
        self, views: Mapping[str, AnyView], latent_dim: int, rngs: nnx.Rngs
    ) -> tuple[dict[str, nnx.Module], dict[str, nnx.Module]]:
        """Returns encoders and decoders by modality, with initial parameters.

        Raises:
          ValueError: for "conv" without such an image, or a width below 1.
        """
        if min(self.hidden, default=0) < 1:
            raise ValueError(f"hidden is {list(self.hidden)}: give widths of at least 1")
        if self.kind == "conv" and not any(map(_is_large_image, views.values())):
            shapes = {name: view.shape for name, view in views.items()}
            raise ValueError(
                f"networks is conv: use mlp, because no modality is an image of {MIN_SIDE} "
                f"pixels a side or more (rows have the shapes {shapes})"
            )
        encoders: dict[str, nnx.Module] = {}
        decoders: dict[str, nnx.Module] = {}
        for name, view in views.items():
            dim, sigmoid = view.dim, view.is_image and view.has_density
            if self.kind == "conv" and _is_large_image(view):
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


def _is_large_image(view: AnyView) -> bool:
    return view.is_image and min(view.dim[:2]) >= MIN_SIDE
