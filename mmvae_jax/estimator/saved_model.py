"""A model of tables in a folder: the files of ``save_pretrained``, and the conversion of tables."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from mmvae_jax.estimator.run_folder import read_run_settings, run_settings
from mmvae_jax.estimator.table_model import TableModel
from mmvae_jax.saving.files import read_json, whole_folder
from mmvae_jax.saving.pretrained import from_pretrained
from mmvae_jax.saving.saved_model import read_config, write_model

TABLES_FILE = "tables.json"


def write_table_model(folder: Path, trained: TableModel, params: Mapping[str, Any]) -> Path:
    """Writes a model of tables into a new folder.

    Raises:
      FileExistsError: if there is anything at the path.
    """
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise FileExistsError(f"folder is {folder}: it exists, and nothing is overwritten")
    content = {**run_settings(trained.views, trained.networks), "params": dict(params)}
    text = json.dumps(content, indent=2, default=list) + "\n"
    with whole_folder(folder.resolve()) as partial:
        write_model(partial, trained.model, folder.name, metrics=None, license=None)
        (partial / TABLES_FILE).write_text(text, encoding="utf-8")
    return folder


def read_table_model(folder: Path) -> tuple[TableModel, dict[str, Any]]:
    """Returns the model of tables in a folder, and the parameters of its estimator.

    Raises:
      FileNotFoundError: if there is no such folder, or it lacks a file.
      ValueError: if files are damaged or of something else.
    """
    content = read_json(folder / TABLES_FILE, source="a folder of MMVAEEstimator.save")
    try:
        views, networks = read_run_settings(content)
        params = dict(content["params"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / TABLES_FILE} cannot be read: {error!r}") from error
    config = read_config(folder).config
    encoders, decoders = networks.build(views, config.latent_dim, nnx.Rngs(0))
    model = from_pretrained(folder, encoders=encoders, decoders=decoders)
    params["hidden"] = tuple(params.get("hidden", networks.hidden))
    return TableModel(model, views, networks), params
