"""A small model, its data, and the script that saved both with version 0.1.0.

    python tests/helpers/version_0_1_0/make.py FOLDER

writes, with the installed version of the package, everything else that is in this folder:

    checkpoints/    a run of 4 steps, of which step 4
    pretrained/     the model after 4 steps, by ``save_pretrained``
    exported/       the same model, by ``export``
    expected.npz    its encoded means, loss and prediction, and the parameters after 8 steps

It needs version 0.1.0, and ``JAX_TRACEBACK_IN_LOCATIONS_LIMIT=0`` to keep paths out of the exports.
"""

import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder

CONFIG = mm.MMVAEConfig(
    input_dims={"sound": (4,), "text": (2, 3)},
    decoders_dist={"text": "categorical"},
    latent_dim=2,
    K=3,
    loss="dreg_looser",  # the default of that version
)
DIMS = CONFIG.input_dims
DATA = {
    "sound": np.float32(np.random.RandomState(0).normal(size=(6, 4))),
    "text": np.int32(np.random.RandomState(1).randint(0, 3, (6, 2))),
}
OPTIONS = {"batch_size": 3, "save_every": 2, "eval_every": 2, "progress": False}


def make_networks() -> dict[str, dict]:
    """Encoders and decoders with hidden layers of 3 units."""
    return {
        "encoders": {
            name: MLPEncoder(dim, 2, hidden=(3,), rngs=nnx.Rngs(i))
            for i, (name, dim) in enumerate(DIMS.items())
        },
        "decoders": {
            name: MLPDecoder(2, dim, hidden=(3,), rngs=nnx.Rngs(5 + i))
            for i, (name, dim) in enumerate(DIMS.items())
        },
    }


def make_state() -> mm.TrainState:
    """The state before the first step."""
    model = mm.MMVAE(CONFIG, **make_networks(), rngs=nnx.Rngs(0))
    return mm.create_train_state(model, optax.adam(1e-3), key=jax.random.key(0))


def compute(model: mm.MMVAE) -> dict[str, np.ndarray]:
    """Results of a model."""
    batch = mm.Batch(DATA)
    predicted = mm.predict(model, batch, jax.random.key(2), cond_mod="text", gen_mod="sound", N=2)
    results = {
        "encoded": mm.encode(model, batch, None, return_mean=True),
        "loss": mm.loss(model, batch, jax.random.key(1)),
        "predicted": predicted["sound"],
    }
    return {name: np.asarray(x) for name, x in results.items()}


def arrays_of(model: mm.MMVAE) -> dict[str, np.ndarray]:
    """Parameters by path."""
    leaves = jax.tree.leaves_with_path(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}


def main(out: Path) -> None:
    """Writes everything."""
    data = mm.MultimodalArrays(DATA)
    options = {**OPTIONS, "eval_data": data}
    folder = out / "checkpoints"
    model = mm.fit(make_state(), data, num_steps=4, checkpoint_dir=folder, **options).state.model()
    for step in (0, 2):
        shutil.rmtree(folder / str(step))
    mm.save_pretrained(model, out / "pretrained")
    mm.export(model, out / "exported", platforms=["cpu"], num_samples=2)
    del options["save_every"]
    last = mm.fit(make_state(), data, num_steps=8, **options).state.model()
    np.savez_compressed(out / "expected.npz", **compute(model), **arrays_of(last))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
