"""PolyDigits: handwritten digits on photographs, several pictures of one digit at a time.

    python -m experiments.digits --help

Trains an MMVAE, measures it on unseen digits, draws what it generates, and leaves all of that in
one folder, from which a run that was stopped can go on.
"""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
import optax
import tyro
from flax import nnx
from jaxtyping import PRNGKeyArray

import mmvae_jax as mm
from experiments import evaluation, reports, runs
from mmvae_jax import loggers
from mmvae_jax.data.arrays import num_examples, take
from mmvae_jax.data.incomplete import missing_at_random
from mmvae_jax.data.polydigits import (
    ALPHABET,
    IMAGE_SIZE,
    MAX_MODALITIES,
    WORD_LENGTH,
    WORDS,
    PolyDigits,
    polydigits,
)
from mmvae_jax.metrics.coherence import cross_coherence_mean
from mmvae_jax.networks.images import ConvDecoder, ConvEncoder
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.run_setup import run_config

Networks = Literal["mlp", "conv"]
NUM_CLASSES = len(WORDS)
#: Fields that say where a run is computed and kept, not what it computes.
ELSEWHERE = ("out", "resume", "mesh", "fsdp", "coordinator", "num_processes", "process_id")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Train an MMVAE on PolyDigits, measure it on unseen digits and draw what it generates."""

    modalities: int = 3
    """Images per example, 2 to 5: one digit in as many handwritings and sceneries."""
    text: bool = False
    """Add the digit's name as one more modality, `word`."""
    networks: Networks = "mlp"
    """Encoders and decoders of the images; those of words are always MLPs."""
    hidden: tuple[int, ...] = (512,)
    """Widths of an encoder's dense hidden layers, in reverse those of the decoder; convolutional
    networks have one."""
    features: tuple[int, ...] = (32, 64)
    """Channels of a convolutional encoder, in reverse those of the decoder."""
    latent_dim: int = 12
    """Size of the latent variable."""
    K: int = 5
    """Particles drawn from each modality's posterior."""
    scale: float = 0.1
    """Scale of the images' Laplace likelihood: a smaller one asks for sharper pictures."""
    loss: str = "dreg_looser"
    """Bound and gradient estimator, a key of mmvae_jax.config.LOSSES."""
    pairings: int = 20
    """How often a training digit is shown, each time with others of its class."""
    missing: float = 0.0
    """Probability that a training image or word is hidden; one of every example always stays."""
    batch_size: int = 64
    """Examples per training step."""
    learning_rate: float = 2e-3
    """Highest rate of Adam: reached after 100 steps (or a tenth of the run, if that is less), it
    falls to 2% along a cosine."""
    num_steps: int = 1500
    """Training steps."""
    log_every: int = 10
    """Steps between rows of history.jsonl."""
    save_every: int = 500
    """Steps between checkpoints; the newest three are kept."""
    num_samples: int = 1000
    """Samples of the prior for the joint coherence."""
    seed: int = 0
    """Of data, initial parameters and particles."""
    out: Path = Path("runs/digits")
    """Folder of the run, new or empty."""
    resume: bool = False
    """Go on with the run in `out`, which must have the same settings."""
    mesh: tuple[int, int] | None = None
    """Devices to spread the examples over, and the particles; by default one device, or with
    several processes all of them for the examples."""
    fsdp: bool = False
    """Spread large parameters over the devices, too."""
    coordinator: str | None = None
    """Address and port of the first of several processes, the same for all."""
    num_processes: int = 1
    """Processes that train together, on one machine or more."""
    process_id: int = 0
    """Number of this one, from 0."""

    def __post_init__(self) -> None:
        counts = ("batch_size", "num_steps", "log_every", "save_every", "num_samples", "pairings")
        for field in (*counts, "num_processes"):
            self._check(field, _is_count(getattr(self, field)), "give an integer of at least 1")
        is_offered = _is_count(self.modalities) and 2 <= self.modalities <= MAX_MODALITIES
        self._check("modalities", is_offered, f"give an integer from 2 to {MAX_MODALITIES}")
        is_networks = self.networks in get_args(Networks)
        self._check("networks", is_networks, f"choose one of {list(get_args(Networks))}")
        for field in ("hidden", "features"):
            sizes = getattr(self, field)
            is_good = bool(sizes) and all(map(_is_count, sizes))
            self._check(field, is_good, "give one or more integers of at least 1")
        is_hidden = self.networks != "conv" or len(self.hidden) == 1
        self._check("hidden", is_hidden, "give one width, or choose networks='mlp'")
        is_features = 2 ** len(self.features) <= IMAGE_SIZE
        self._check("features", is_features, "give at most 4: each halves images of 16 pixels")
        self._check("seed", _is_count(self.seed + 1), "give an integer of at least 0")
        self._check("missing", 0 <= self.missing <= 1, "give a probability from 0 to 1")
        for field in ("learning_rate", "scale"):
            value = getattr(self, field)
            is_positive = math.isfinite(value) and value > 0
            self._check(field, is_positive, "give a finite number above 0")
        is_mesh = self.mesh is None or all(map(_is_count, self.mesh))
        self._check("mesh", is_mesh, "give two integers of at least 1")
        is_spread = self.mesh is not None or self.num_processes > 1
        self._check("fsdp", is_spread or not self.fsdp, "add --mesh")
        is_known = self.coordinator is not None or self.num_processes == 1
        self._check("coordinator", is_known, "give address:port of the first process")
        is_one = _is_count(self.process_id + 1) and self.process_id < self.num_processes
        self._check("process_id", is_one, f"give 0 to {self.num_processes - 1}")
        self.model_config()  # checks latent_dim, K and loss

    def _check(self, field: str, is_good: bool, fix: str) -> None:
        if not is_good:
            raise ValueError(f"{field} is {getattr(self, field)!r}: {fix}")

    def model_config(self) -> mm.MMVAEConfig:
        """The settings of the model."""
        images = [f"m{m}" for m in range(self.modalities)]
        words = ["word"] * self.text
        return mm.MMVAEConfig(
            input_dims={name: (IMAGE_SIZE, IMAGE_SIZE, 3) for name in images}
            | {name: (WORD_LENGTH, len(ALPHABET)) for name in words},
            decoders_dist=dict.fromkeys(images, "laplace") | dict.fromkeys(words, "categorical"),
            decoder_dist_params={name: {"scale": self.scale} for name in images},
            latent_dim=self.latent_dim,
            K=self.K,
            loss=self.loss,
        )

    def settings(self) -> dict[str, Any]:
        """What a run computes depends on these fields alone; JSON can hold them."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in ELSEWHERE}

    def run_config(self) -> dict[str, Any]:
        """What is left beside the checkpoints."""
        return run_config(self.model_config(), self.batch_size, self.seed, self.settings())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def mlp_networks(
    config: Config, dim: tuple[int, ...], rngs: nnx.Rngs
) -> tuple[nnx.Module, nnx.Module]:
    """Fully connected networks; what they decode is intensities if it has the shape of an image."""
    is_image = len(dim) == 3
    decoder_hidden = config.hidden[::-1]
    return (
        MLPEncoder(dim, config.latent_dim, hidden=config.hidden, rngs=rngs),
        MLPDecoder(config.latent_dim, dim, hidden=decoder_hidden, sigmoid=is_image, rngs=rngs),
    )


def conv_networks(
    config: Config, dim: tuple[int, ...], rngs: nnx.Rngs
) -> tuple[nnx.Module, nnx.Module]:
    """Convolutional networks for images."""
    (hidden,), features = config.hidden, config.features
    return (
        ConvEncoder(dim, config.latent_dim, features=features, hidden=hidden, rngs=rngs),
        ConvDecoder(
            config.latent_dim, dim, features=features[::-1], hidden=hidden, sigmoid=True, rngs=rngs
        ),
    )


NETWORKS = {"mlp": mlp_networks, "conv": conv_networks}


def main(config: Config) -> dict[str, Any]:
    """Run the experiment, print a summary and return what ``metrics.json`` holds.

    Raises:
      ValueError: if the folder is not fit for the run, before anything is computed or written.
    """
    runs.check_folder(config.out, config.run_config(), resume=config.resume)
    return complete(config)


def command_line() -> None:
    """`main` of the command line's settings; what is wrong with them is said without a trace."""
    config = tyro.cli(Config)
    runs.keep_compiled()
    runs.connect(config.coordinator, config.num_processes, config.process_id)
    try:
        runs.check_folder(config.out, config.run_config(), resume=config.resume)
    except ValueError as error:
        sys.exit(f"error: {error}")
    try:
        complete(config)
    except mm.Preempted as end:
        print(end, file=sys.stderr)
        raise
    except mm.LostProcessError as error:
        runs.leave(error)


def complete(config: Config) -> dict[str, Any]:
    """Do what is left of a run; a finished one stays as it is."""
    file = config.out / runs.METRICS_FILE
    if not file.exists():
        metrics = run(config)
        if jax.process_index() > 0:
            return metrics
        runs.write_json(file, metrics)
    metrics = json.loads(file.read_text())
    print(reports.table(metrics, num_classes=NUM_CLASSES))
    for path in sorted(config.out.iterdir()):
        print(path)
    return metrics


def run(config: Config) -> dict[str, Any]:
    """Train, evaluate and draw; with several processes the first one draws."""
    seconds: dict[str, float] = {}
    init_key, train_key, eval_key, draw_key = jax.random.split(jax.random.key(config.seed), 4)
    history = config.out / runs.HISTORY_FILE
    with runs.timed(seconds, "data"):
        dataset = polydigits(
            config.modalities, num_pairings=config.pairings, text=config.text, seed=config.seed
        )
        train_set = missing_at_random(dataset.train, config.missing, seed=config.seed)
    with runs.timed(seconds, "train"):
        trained = mm.fit(
            init_state(config, init_key, train_key),
            train_set,
            batch_size=config.batch_size,
            num_steps=config.num_steps,
            seed=config.seed,
            checkpoint_dir=config.out / runs.CHECKPOINTS,
            save_every=config.save_every,
            resume=config.resume,
            settings=config.settings(),
            callbacks=[loggers.jsonl(history)],
            log_every=config.log_every,
        )
        state, model = trained.state, trained.state.model()
    with runs.timed(seconds, "evaluate"):
        results = evaluate(config, state, model, dataset, eval_key)
    if jax.process_index() == 0:
        with runs.timed(seconds, "draw"):
            columns = loggers.read_jsonl(history)
            for name, figure in reports.draw(model, dataset.test, columns, draw_key).items():
                figure.savefig(config.out / f"{name}.png", dpi=150)
    return {
        **results,
        "config": config.settings(),
        **runs.provenance(),
        "seconds": {**seconds, "total": round(sum(seconds.values()), 2)},
    }


def init_state(config: Config, init_key: PRNGKeyArray, train_key: PRNGKeyArray) -> mm.TrainState:
    """The state of step 0."""
    model_config = config.model_config()
    rngs = nnx.Rngs(init_key)
    encoders, decoders = {}, {}
    for name, dim in model_config.input_dims.items():
        networks = NETWORKS["mlp" if name == "word" else config.networks]
        encoders[name], decoders[name] = networks(config, dim, rngs)
    model = mm.MMVAE(model_config, encoders, decoders, rngs=rngs)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        warmup_steps=min(100, config.num_steps // 10),
        decay_steps=config.num_steps,
        end_value=0.02 * config.learning_rate,
    )
    mesh = None
    if config.mesh is not None or config.num_processes > 1:
        mesh = mm.make_mesh(*(config.mesh or ()))
    return mm.create_train_state(
        model, mm.make_optimizer(schedule), key=train_key, mesh=mesh, fsdp=config.fsdp
    )


def evaluate(
    config: Config, state: mm.TrainState, model: mm.MMVAE, dataset: PolyDigits, key: PRNGKeyArray
) -> dict[str, Any]:
    """Measure the model on the test split, all of it complete."""
    loss_key, classifier_key, conditional_key, joint_key = jax.random.split(key, 4)
    test, batch_size = dataset.test, config.batch_size
    loss = mm.evaluate(state, test, batch_size=batch_size, key=loss_key)["loss"]
    classifiers = evaluation.train_classifiers(dataset.train, NUM_CLASSES, classifier_key)
    coherence = evaluation.measure_conditional_coherence(model, test, classifiers, conditional_key)
    # Each training digit once: its other pairings show a modality nothing new but background.
    one_pairing = take(dataset.train, np.arange(num_examples(dataset.train) // config.pairings))
    probes = evaluation.probe_modalities(model, one_pairing, test)
    return {
        "steps": int(state.step),
        "test_bound": -loss,
        "conditional_coherence": cross_coherence_mean(coherence),
        "conditional_coherence_pairs": coherence,
        "joint_coherence": evaluation.measure_joint_coherence(
            model, classifiers, joint_key, num_samples=config.num_samples
        ),
        "latent_probe": float(np.mean(list(probes.values()))),
        "latent_probe_modalities": probes,
        "classifier_accuracy": evaluation.classifier_accuracy(classifiers, test),
    }


if __name__ == "__main__":
    command_line()
