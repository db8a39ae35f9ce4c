"""The model of a training run, loaded from its checkpoints."""

import os
from collections.abc import Mapping
from typing import Any, Literal

from flax import nnx
from flax.typing import Dtype

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.inputs.paths import as_path
from mmvae_jax.model import MMVAE, Modules
from mmvae_jax.training.checkpoint import Checkpoints
from mmvae_jax.training.run_settings import SETTINGS_FILE, read_settings, with_new_fields


def load(
    path: str | os.PathLike,
    *,
    step: int | Literal["best"] | None = None,
    config: MMVAEConfig | None = None,
    encoders: Modules | None = None,
    decoders: Modules | None = None,
    dtype: Dtype | None = None,
) -> tuple[MMVAE, MMVAEConfig]:
    """Loads the model that ``fit`` has saved, without its optimizer.

    Only arrays and JSON are read, never code.

    Args:
      path: directory of the run's checkpoints.
      step: a saved step, or ``"best"`` for that of the best evaluation; by default the newest
        undamaged one.
      config: config of the run, needed only if it holds a custom likelihood or family, whose name
        is all that the files hold.
      encoders: modules of the trained architecture, with any parameters, for modalities whose
        encoder is not the default. The modules are not changed.
      decoders: modules of the trained architecture, likewise.
      dtype: type that the default networks compute in.

    Returns:
      The model, and its config.

    Raises:
      FileNotFoundError: if there is no such checkpoint.
      ValueError: if files are damaged, or if the networks are not those of the run.

    >>> state = mm.create_train_state(model, tx, key=jax.random.key(0))
    >>> result = mm.fit(state, arrays, num_steps=2, batch_size=5, progress=False,
    ...                 checkpointing=mm.Checkpointing(directory=folder))
    >>> trained, settings = mm.load(folder)
    >>> settings == config
    True
    """
    directory = as_path(path).absolute()
    if (directory / "checkpoints").is_dir():
        raise ValueError(
            f"path is {directory}, the folder of a run on tables: give mm.MMVAEEstimator.load("
            f"{str(path)!r}) for the model and its tables' conversion"
        )
    saved = read_settings(directory)
    if "model" not in saved:
        raise ValueError(
            f"{directory / SETTINGS_FILE} has no field 'model': give the directory of a run's "
            "checkpoints"
        )
    config = _known_config(config, saved["model"])
    model = MMVAE(config, encoders, decoders, dtype=dtype, rngs=nnx.Rngs(0))
    checkpoints = Checkpoints(directory, config=saved)
    number = _best_step(checkpoints) if step == "best" else step
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    arrays = {"params": nnx.to_pure_dict(params), "rest": nnx.to_pure_dict(rest)}
    restored = checkpoints.restore_model(arrays, number)
    return nnx.merge(graphdef, restored["params"], restored["rest"], copy=True), config


def _known_config(config: MMVAEConfig | None, saved: Mapping[str, Any]) -> MMVAEConfig:
    """Returns the config of a run, after a check against the saved fields."""
    if config is None:
        return MMVAEConfig.from_dict(saved)
    given = config.describe()
    saved = with_new_fields(saved, given)
    names = [name for name in given if given[name] != saved.get(name)]
    if names:
        raise ValueError(
            f"config has other values than the run for {names}: give the config of the run, where "
            f"they are {[saved.get(name) for name in names]}"
        )
    return config


def _best_step(checkpoints: Checkpoints) -> int:
    """Returns the step of the best evaluation before the newest intact checkpoint."""
    newest = checkpoints.intact_step()
    step = checkpoints.extra(newest)["judge"]["best_step"]
    if step is None:
        raise ValueError(
            f"step is 'best', but the run in {checkpoints.directory} evaluated no step: leave step "
            "out for the newest, or train with evaluation=mm.Evaluation(...)"
        )
    return step
