"""``mmvae predict``: modalities from others, in the units of the data."""

import dataclasses

from mmvae_jax.cli.given_rows import FromGiven
from mmvae_jax.cli.results import warn_of_unavailable, write_arrays
from mmvae_jax.inference.selection import modality_names
from mmvae_jax.tables.tables import MASK, PROBABILITIES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(FromGiven):
    """Generate modalities from others, in the units and shapes of the data.

    Classes are integers, or the texts and numbers of the data, with their probabilities in
    probabilities/NAME unless there are draws. Other values are floats: bytes from 0 to 255,
    booleans as probabilities. A row that observes nothing of --given becomes NaN, or -1 or empty
    text for classes, and False in mask/NAME.
    """

    generate: tuple[str, ...]
    """Modalities to predict."""

    def run(self) -> None:
        """Writes the file, or nothing if anything is wrong."""
        run, given, data = self.open()
        generate = modality_names("--generate", self.generate, run.config)
        trained, _ = run.load(self.step)
        rows, probabilities, available = trained.predict(data, given, generate, **self.options)
        arrays = trained.labelled(rows) | {
            PROBABILITIES + name: x for name, x in probabilities.items()
        }
        if not available.all():
            arrays |= {MASK + name: available for name in generate}
            placeholders = f"NaN there, -1 or empty text for classes, and False in {MASK}NAME"
            warn_of_unavailable(available, given, placeholders)
        write_arrays(self.out, arrays, shown=generate)
