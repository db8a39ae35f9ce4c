"""``mmvae predict``: modalities from others, in the units of the data."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
from jaxtyping import Bool, Shaped
from tyro.conf import arg

import mmvae_jax as mm
from mmvae_jax.checks import check_count
from mmvae_jax.cli.arguments import (
    MEAN_OR_DRAWS,
    Data,
    DrawSeed,
    RunFolder,
    Step,
    WeightingFlag,
)
from mmvae_jax.cli.dataset import (
    available_rows,
    check_examples,
    device_calls,
    warn_of_unavailable,
)
from mmvae_jax.cli.run_folder import check_out_file, open_run
from mmvae_jax.data import take
from mmvae_jax.inference.selection import modality_names
from mmvae_jax.inference.weighting import Weighting
from mmvae_jax.saving.files import whole_file, write_npz
from mmvae_jax.tables.reading import read_tables
from mmvae_jax.tables.tables import MASK, PROBABILITIES
from mmvae_jax.tables.views import View


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """Generate modalities from others, in the units and shapes of the data.

    Classes are integers, with their probabilities in probabilities/NAME unless there are draws.
    Other values are floats: bytes from 0 to 255, booleans as probabilities. A row that observes
    nothing of --given becomes NaN, or -1 for classes, and False in mask/NAME.
    """

    run_dir: RunFolder
    data: Data
    given: tuple[str, ...]
    """Modalities to predict from. A row is predicted from the ones that it observes."""
    generate: tuple[str, ...]
    """Modalities to predict."""
    out: Path
    """New .npz file for the predictions."""
    mean: Annotated[bool, MEAN_OR_DRAWS, arg(help_behavior_hint="(default)")] = False
    """One value per row, decoded from the mean latent; of classes the most probable one."""
    num_samples: Annotated[int | None, MEAN_OR_DRAWS, arg(help_behavior_hint="")] = None
    """Draws per row, [rows, draws, ...] in the file. Images have no pixelwise noise."""
    weighting: WeightingFlag = "mixture"
    step: Step = None
    seed: DrawSeed = 0

    def run(self) -> None:
        """Writes the file, or nothing if anything is wrong."""
        check_out_file(self.out)
        run = open_run(self.run_dir)
        given = modality_names("--given", self.given, run.config)
        generate = modality_names("--generate", self.generate, run.config)
        table = read_tables(self.data)
        if not any(name in table.modalities for name in given):
            raise ValueError(
                f"--given is {list(given)}: {table.place} has only {list(table.modalities)}"
            )
        rows, available = predict_rows(
            run.model(self.step)[0],
            run.views,
            check_examples(table, run.views),
            given=given,
            generate=generate,
            num_samples=self.num_samples,
            weighting=self.weighting,
            seed=self.seed,
        )
        if not available.all():
            rows |= {MASK + name: available for name in generate}
            placeholders = f"NaN there, -1 for classes, and False in {MASK}NAME"
            warn_of_unavailable(available, given, placeholders)
        with whole_file(self.out) as file:
            write_npz(file, rows)
        for name in generate:
            print(f"{name}: {rows[name].dtype}{list(rows[name].shape)} in {self.out}")


def predict_rows(
    model: mm.MMVAE,
    views: Mapping[str, View],
    data: mm.MultimodalArrays,
    *,
    given: Sequence[str],
    generate: Sequence[str],
    num_samples: int | None = None,
    weighting: Weighting = "mixture",
    seed: int = 0,
) -> tuple[dict[str, Shaped[np.ndarray, "n ..."]], Bool[np.ndarray, " n"]]:
    """Predicts modalities of every row from the others that it observes.

    A draw is a latent from ``encode`` with this weighting, then a value from the likelihood. The
    likelihood of an image is noise on every pixel, so its draw is the decoded latent itself.
    Without ``num_samples`` the mean latent is decoded.

    Returns:
      Rows ``[n, *shape]`` by modality, or ``[n, num_samples, *shape]`` for draws, and a mask
      ``[n]`` of the rows that observe something given. Other rows are NaN, or -1 for classes.
      Without draws, ``probabilities/<m>`` holds the ``[n, *shape, classes]`` of a class.
    """
    is_mean = num_samples is None
    num = 1 if num_samples is None else num_samples
    check_count("--num-samples", num)
    available = available_rows(data, given)
    predicted = {name: views[name].missing_rows(len(available), num) for name in generate}
    probabilities = {
        name: np.full((len(available), *views[name].dim), np.nan, np.float32)
        for name in generate
        if is_mean and views[name].num_classes
    }
    noisy = [name for name in generate if not (is_mean or views[name].is_image)]
    plain = [name for name in generate if name not in noisy]
    for rows, key in device_calls(available, seed):
        batch = take(data, rows)
        for names, sample in ((plain, False), (noisy, True)):
            if not names:
                continue
            decoded = mm.predict(
                model,
                batch,
                jax.random.clone(key),  # the same latents for both
                cond_mod=given,
                gen_mod=names,
                N=num,
                return_mean=is_mean,
                weighting=weighting,
                sample=sample,
            )
            for name, x in decoded.items():
                predicted[name][rows] = views[name].to_rows(np.asarray(x), are_draws=sample)
                if name in probabilities:
                    probabilities[name][rows] = jax.nn.softmax(x[:, 0], axis=-1)
    found = {name: x[:, 0] if is_mean else x for name, x in predicted.items()}
    return found | {PROBABILITIES + name: x for name, x in probabilities.items()}, available
