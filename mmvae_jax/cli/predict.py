"""``mmvae predict``: modalities from others, in the units of the data."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
from jaxtyping import Bool, Shaped
from tyro.conf import arg, create_mutex_group

import mmvae_jax as mm
from mmvae_jax.checks import check_count
from mmvae_jax.cli.arguments import Data, RunFolder, Step
from mmvae_jax.cli.dataset import all_examples
from mmvae_jax.cli.run_folder import open_run
from mmvae_jax.cli.tables import MASK, read_table
from mmvae_jax.cli.views import View
from mmvae_jax.data.arrays import take
from mmvae_jax.saving.files import whole_file
from mmvae_jax.selection import modality_names

#: Rows in one call on the device.
BATCH_SIZE = 256

_ONE_WAY = create_mutex_group(required=False, title="what to predict")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """Generate modalities from others, in the units and shapes of the data.

    Numbers come back as floats (bytes in 0 to 255, booleans as probabilities), NaN in rows that
    have nothing of what is given; classes as integers, -1 in such rows, which mask/NAME then tells.
    """

    run_dir: RunFolder
    data: Data
    given: tuple[str, ...]
    """Modalities to predict from; a row is predicted from those of them that it has."""
    generate: tuple[str, ...]
    """Modalities to predict."""
    out: Path
    """New .npz file for what is predicted."""
    mean: Annotated[bool, _ONE_WAY, arg(help_behavior_hint="(default)")] = False
    """One value for each row, of classes the likeliest, from the mean latent."""
    num_samples: Annotated[int | None, _ONE_WAY, arg(help_behavior_hint="")] = None
    """Draws for each row, [rows, draws, ...] in the file; of images without pixelwise noise."""
    step: Step = None
    seed: int = 0
    """Of the draws."""

    def run(self) -> None:
        """Write the file; nothing if anything is wrong."""
        if self.out.exists():
            raise FileExistsError(f"--out is {self.out}, which exists: nothing is overwritten")
        if not self.out.parent.is_dir():
            raise FileNotFoundError(f"--out is {self.out}, in no folder: make {self.out.parent}")
        run = open_run(self.run_dir)
        given = modality_names("--given", self.given, run.config)
        generate = modality_names("--generate", self.generate, run.config)
        table = read_table(self.data)
        if not any(name in table.modalities for name in given):
            raise ValueError(
                f"--given is {list(given)}, none of which {table.path} holds: it has "
                f"{list(table.modalities)}"
            )
        data = all_examples(table, run.views)
        rows, available = predict_rows(
            run.model(self.step)[0],
            run.views,
            data,
            given=given,
            generate=generate,
            num_samples=self.num_samples,
            seed=self.seed,
        )
        if not available.all():
            rows |= {MASK + name: available for name in generate}
            print(
                f"warning: {(~available).sum()} of {len(available)} rows have nothing of "
                f"{', '.join(given)}: NaN there, -1 for classes, and False in {MASK}<name>",
                file=sys.stderr,
            )
        with whole_file(self.out) as file:
            np.savez(file, allow_pickle=False, **rows)
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
    seed: int = 0,
) -> tuple[dict[str, Shaped[np.ndarray, "n ..."]], Bool[np.ndarray, " n"]]:
    """Predict modalities of every row from what it has of others.

    A draw is a latent from one of the experts, then a value from the likelihood, except for images,
    whose likelihood is noise on every pixel: for these it is what the latent decodes to. Without
    ``num_samples`` there are no draws, but what the mean latent decodes to.

    Returns:
      ``[n, *shape]`` by modality, ``[n, num_samples, *shape]`` for draws, NaN (-1 for classes)
      where nothing is given; and which rows something is given of.
    """
    is_mean = num_samples is None
    num = 1 if num_samples is None else num_samples
    check_count("num_samples", num)
    assert data.mask is not None, "examples gives a mask"
    available = np.any([data.mask[name] for name in given], axis=0)
    found = {name: views[name].no_rows(len(available), num) for name in generate}
    noisy = [name for name in generate if not (is_mean or views[name].is_image)]
    plain = [name for name in generate if name not in noisy]
    there = np.flatnonzero(available)
    for start in range(0, len(there), BATCH_SIZE):
        rows = there[start : start + BATCH_SIZE]
        batch = take(data, rows)
        key = jax.random.fold_in(jax.random.key(seed), start)
        for names, sample in ((plain, False), (noisy, True)):
            if not names:
                continue
            decoded = mm.predict(
                model,
                batch,
                jax.random.clone(key),  # the same latents in both turns
                cond_mod=given,
                gen_mod=names,
                N=num,
                return_mean=is_mean,
                sample=sample,
            )
            for name, x in decoded.items():
                found[name][rows] = views[name].to_rows(np.asarray(x), are_draws=sample)
    return {name: x[:, 0] if is_mean else x for name, x in found.items()}, available
