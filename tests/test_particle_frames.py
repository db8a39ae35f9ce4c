"""The way of a particle: functions of the package between ``train_step`` and a decoder's call."""

import traceback
from pathlib import Path

import jax
import optax
from flax import nnx
from helpers.small_model import DIMS, SmallDecoder, make_data, make_model

import mmvae_jax as mm

PACKAGE = Path(mm.__file__).parent
MOST_FRAMES = 12

frames: list[traceback.FrameSummary] = []


class Watched(SmallDecoder):
    """A decoder that notes the frames of the package that lead to its latest call."""

    def __call__(self, z):
        stack = traceback.extract_stack()
        frames[:] = [frame for frame in stack if Path(frame.filename).is_relative_to(PACKAGE)]
        return super().__call__(z)


def test_a_particle_takes_few_functions():
    """Counts closures, too; dense backward on one device."""
    decoders = {name: Watched(4, dim, name) for name, dim in DIMS.items()}
    model = mm.MMVAE(make_model().config, decoders=decoders, rngs=nnx.Rngs(0))
    state = mm.create_train_state(model, optax.sgd(0.1), key=jax.random.key(0))
    step = mm.train_step.__wrapped__  # traced without the compilation that follows
    jax.eval_shape(lambda: step(state, mm.Batch(make_data()), backward=mm.Backward("dense"))[1])
    assert frames[0].name.endswith("train_step")
    way = " -> ".join(frame.name for frame in frames)
    assert len(frames) <= MOST_FRAMES, f"{len(frames)} functions: {way}"
