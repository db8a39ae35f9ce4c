"""A trained model from the checkpoints of its run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from flax import nnx
from flax.typing import Dtype

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.model import MMVAE, Modules
from mmvae_jax.training.checkpoint import Checkpoints
from mmvae_jax.training.run_settings import SETTINGS_FILE, read_settings


def load(
    path: str | os.PathLike,
    *,
    step: int | Literal["best"] | None = None,
    config: MMVAEConfig | None = None,
    encoders: Modules | None = None,
    decoders: Modules | None = None,
    dtype: Dtype | None = None,
) -> tuple[MMVAE, MMVAEConfig]:
    """The model that ``fit`` has saved, for use without its optimizer.

    Only arrays and JSON are read, never code.

    Args:
      path: the run's ``checkpoint_dir``.
      step: a saved step, or ``"best"`` for that of the best evaluation; by default the newest
        whose files are as they were written.
      config: the config that was trained with, where it holds a likelihood or a family of one's
        own, of which a file says but the name.
      encoders: modules of the architecture that was trained, with any parameters, for modalities
        whose encoder is not the default; they stay as they are.
      decoders: the same of decoders.
      dtype: that the default networks compute in.

    Returns:
      The model, and its config.

    Raises:
      FileNotFoundError: if there is no such checkpoint.
      ValueError: if the files are not those that were written, or the networks not those that
        were trained.

    >>> state = mm.create_train_state(model, tx, key=jax.random.key(0))
    >>> options = {"batch_size": 5, "checkpoint_dir": folder, "progress": False}
    >>> result = mm.fit(state, arrays, num_steps=2, **options)
    >>> trained, settings = mm.load(folder)
    >>> settings == config
    True
    """
    directory = Path(path).absolute()
    told = read_settings(directory)
    if "model" not in told:
        raise ValueError(
            f"{directory / SETTINGS_FILE} has no field 'model': give the checkpoint_dir of mm.fit"
        )
    config = _known(config, told["model"])
    model = MMVAE(config, encoders, decoders, dtype=dtype, rngs=nnx.Rngs(0))
    checkpoints = Checkpoints(directory, config=told)
    number = _best_step(checkpoints) if step == "best" else step
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    arrays = {"params": nnx.to_pure_dict(params), "rest": nnx.to_pure_dict(rest)}
    restored = checkpoints.restore_model(arrays, number)
    return nnx.merge(graphdef, restored["params"], restored["rest"], copy=True), config


def _known(config: MMVAEConfig | None, told: Mapping[str, Any]) -> MMVAEConfig:
    """The config of which a file tells."""
    if config is None:
        return MMVAEConfig.from_dict(told)
    given = config.describe()
    names = [name for name in given if given[name] != told.get(name)]
    if names:
        raise ValueError(
            f"config has other values than the run for {names}: give the config that was trained "
            f"with; there they are {[told.get(name) for name in names]}"
        )
    return config


def _best_step(checkpoints: Checkpoints) -> int:
    """The step of the best evaluation that the run knew of when it was last saved."""
    newest = checkpoints.intact_step()
    step = checkpoints.extra(newest)["judge"]["best_step"]
    if step is None:
        raise ValueError(
            f"step is 'best', but the run in {checkpoints.directory} evaluated no step: leave step "
            "out for the newest, or train with eval_data"
        )
    return step
