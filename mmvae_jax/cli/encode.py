"""``mmvae encode``: latents of rows."""

import dataclasses

from mmvae_jax.cli.given_rows import FromGiven
from mmvae_jax.cli.results import warn_of_unavailable, write_arrays
from mmvae_jax.tables.tables import MASK

#: Name of the latents in the file.
LATENTS = "latents"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encode(FromGiven):
    """Write the latents of rows, [rows, latent_dim], as the array "latents" of an .npz file.

    A row that observes nothing of --given becomes NaN, and False in mask/latents.
    """

    def run(self) -> None:
        """Writes the file, or nothing if anything is wrong."""
        run, given, data = self.open()
        latents, available = run.load(self.step)[0].encode(data, given, **self.options)
        arrays = {LATENTS: latents}
        if not available.all():
            arrays[MASK + LATENTS] = available
            warn_of_unavailable(available, given, f"NaN there, and False in {MASK}{LATENTS}")
        write_arrays(self.out, arrays, shown=[LATENTS])
