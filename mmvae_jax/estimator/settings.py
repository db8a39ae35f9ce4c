"""Settings of the training of a model on tables."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from mmvae_jax.checks import (
    check_at_least,
    check_choice,
    check_count,
    check_not_negative,
    check_positive,
    check_share,
)
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.estimator.networks import NetworkKind
from mmvae_jax.likelihood_params import LIKELIHOOD_PARAMS, Learned
from mmvae_jax.likelihood_settings import MixedLikelihood
from mmvae_jax.maths.distributions import FAMILIES
from mmvae_jax.maths.losses import LOSSES
from mmvae_jax.tables.mixed_view import MIXED, AnyView, MixedView
from mmvae_jax.tables.view_selection import LIBRARY_SIZES, TRANSFORMS
from mmvae_jax.tables.views import View

#: Default number of steps.
NUM_STEPS = 2000
#: Scales of normal and Laplace likelihoods, of intensities and of standardised columns.
IMAGE_SCALE, COLUMN_SCALE = 0.1, 0.5


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class TrainingSettings:
    """Settings of the training of a model on tables."""

    likelihood: Mapping[str, str] | None = None
    """Likelihoods of modalities, such as age=normal; the values decide that of the others. The
    likelihood mixed has one for each kind of column."""
    preprocess: Mapping[str, str] | None = None
    """Transforms of tables of measurements: standardise (default), log1p, then standardised, or
    none."""
    scale: Mapping[str, float] | None = None
    """Scales of normal and laplace likelihoods. A smaller scale asks for more detail. The default
    is 0.1 for images, whose intensities are 0 to 1, and 0.5 standard deviations for columns."""
    learn_scale: bool = True
    """Train the scales of tables from these values on, one for each column."""
    library_size: Mapping[str, str] | None = None
    """Offsets of counts: observed, the total count of the row, as in scVI (default for tables of
    several columns), or none, for totals that mean something. Rows that lack the counts, and draws
    from the prior, have the median total of the rows to train on."""
    posterior: Literal["laplace_with_softmax", "normal", "normal_with_softplus"] = "normal"
    """Family of the posteriors and the prior."""
    learn_prior: bool = True
    """Train the prior's scale."""
    latent_dim: int = 10
    """Size of the latent variable."""
    K: int = 10
    """Particles drawn from each modality's posterior."""
    loss: str = "adaptive_dreg_looser"
    """Gradient estimator and bound, such as iwae_looser, iwae (the tight bound) or elbo."""
    beta: float = 1.0
    """Weight of log p(z) - log q(z|X) in the importance weights."""
    rescale: bool = False
    """Multiply each likelihood by (values of the largest modality) / (values of this one)."""
    networks: NetworkKind = "mlp"
    """conv: convolutions for images of 20 pixels a side or more."""
    hidden: tuple[int, ...] = (256,)
    """Widths of an encoder's dense hidden layers; the decoder has them in reverse."""
    num_steps: int | None = None
    """Training steps, 2000 by default."""
    num_epochs: int | None = None
    """Passes over the data, in place of a number of steps."""
    batch_size: int = 128
    """Examples per step; all examples if there are fewer."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    missing: float = 0.0
    """Share of the observed modalities of training rows that are hidden at random."""
    validation: float = 0.1
    """Share of rows, drawn at random, whose loss decides the best step."""
    patience: int | None = 10
    """Stop after this many evaluations without a better one (one per epoch, or per 50 steps)."""
    seed: int = 0
    """Seed of the split, initial parameters, order of the data and particles."""

    def check(self) -> None:
        """Checks all that can be checked without data.

        Raises:
          ValueError: naming the setting that is wrong.
        """
        for field in ("latent_dim", "K", "batch_size"):
            check_count(field, getattr(self, field))
        for field in ("num_steps", "num_epochs", "patience"):
            if getattr(self, field) is not None:
                check_count(field, getattr(self, field))
        if self.num_steps is not None and self.num_epochs is not None:
            raise ValueError(
                f"num_steps is {self.num_steps} and num_epochs {self.num_epochs}: give one of the "
                "two"
            )
        for field in ("missing", "validation"):
            check_share(field, getattr(self, field))
        check_positive("learning_rate", self.learning_rate)
        check_not_negative("beta", self.beta)
        check_at_least("seed", self.seed, 0)
        check_choice("loss", self.loss, tuple(LOSSES))
        check_choice("posterior", self.posterior, tuple(FAMILIES))
        check_choice("networks", self.networks, get_args(NetworkKind))
        for width in self.hidden or (0,):
            check_count("hidden", width)
        for field in ("likelihood", "preprocess", "scale", "library_size"):
            value = getattr(self, field)
            if not isinstance(value, Mapping | None):
                raise ValueError(f"{field} is {value!r}: give a dict by modality name")
        for name, likelihood in (self.likelihood or {}).items():
            check_choice(f"likelihood[{name!r}]", likelihood, (*LIKELIHOOD_PARAMS, MIXED))
        for name, transform in (self.preprocess or {}).items():
            check_choice(f"preprocess[{name!r}]", transform, TRANSFORMS)
        for name, library_size in (self.library_size or {}).items():
            check_choice(f"library_size[{name!r}]", library_size, LIBRARY_SIZES)
        for name, scale in (self.scale or {}).items():
            check_positive(f"scale[{name!r}]", scale)

    def config(self, views: Mapping[str, AnyView]) -> MMVAEConfig:
        """Returns the config of a model of these views.

        Raises:
          ValueError: naming the setting that is wrong.
        """
        scales = {
            name: IMAGE_SCALE if view.is_image else COLUMN_SCALE
            for name, view in views.items()
            if view.has_density
        } | dict(self.scale or {})
        params: dict[str, dict[str, Any]] = {
            name: {"scale": self._scale(view, scale)}
            for name, scale in scales.items()
            if isinstance(view := views[name], View)
        }
        for name, view in views.items():
            if view.library_size is not None:
                params.setdefault(name, {})["library_size"] = view.library_size
        return MMVAEConfig(
            input_dims={name: view.dim for name, view in views.items()},
            decoders_dist={
                name: self._mixed_likelihood(view, scales.get(name, COLUMN_SCALE))
                if isinstance(view, MixedView)
                else view.likelihood
                for name, view in views.items()
            },
            decoder_dist_params=params,
            uses_likelihood_rescaling=self.rescale,
            prior_and_posterior_dist=self.posterior,
            learn_prior=self.learn_prior,
            latent_dim=self.latent_dim,
            K=self.K,
            beta=self.beta,
            loss=self.loss,
        )

    def _mixed_likelihood(self, view: MixedView, scale: float) -> MixedLikelihood:
        """Returns the likelihood of a view of several kinds of columns."""
        return MixedLikelihood(
            [
                (
                    part.view.likelihood,
                    part.view.dim[0],
                    {"scale": self._scale(part.view, scale)} if part.view.has_density else {},
                )
                for part in view.parts
            ]
        )

    def _scale(self, view: View, scale: float) -> float | Learned:
        """Returns the entry of the config for the scale of a view's likelihood."""
        is_learned = self.learn_scale and not view.is_image
        return Learned(scale, per_feature=True) if is_learned else scale
