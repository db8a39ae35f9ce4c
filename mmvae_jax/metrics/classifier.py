"""A small classifier, trained on real examples, that says what a generated example shows."""

import functools
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

#: What a saved classifier says that it is.
FORMAT = "mmvae_jax.classifier.1"


class _MLP(nnx.Module):
    def __init__(self, num_inputs: int, num_hidden: int, num_classes: int, *, rngs: nnx.Rngs):
        self.hidden = nnx.List(
            [
                nnx.Linear(num_inputs, num_hidden, rngs=rngs),
                nnx.Linear(num_hidden, num_hidden, rngs=rngs),
            ]
        )
        self.logits = nnx.Linear(num_hidden, num_classes, rngs=rngs)

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n hidden"]:
        x = 2 * x.reshape(len(x), -1) - 1
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        return x

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n classes"]:
        return self.logits(self.features(x))


@struct.dataclass
class Classifier:
    """A trained classifier of one modality; make one with `train_classifier`."""

    params: dict
    graphdef: nnx.GraphDef = struct.field(pytree_node=False)
    input_dim: tuple[int, ...] = struct.field(pytree_node=False)

    def predict(self, x: Float[Array | np.ndarray, "n ..."]) -> Int[Array, " n"]:
        """Returns the most probable class of every row of `x`, which is `[n, *input_dim]`.

        Raises:
            ValueError: if the rows have another shape than those trained on.
        """
        self._check(x)
        return _predict(self, x)

    def features(self, x: Float[Array | np.ndarray, "n ..."]) -> Float[Array, "n hidden"]:
        """Returns the activations of the last hidden layer, for `frechet_distance` say.

        Raises:
            ValueError: if the rows have another shape than those trained on.
        """
        self._check(x)
        return _features(self, x)

    def accuracy(
        self, x: Float[Array | np.ndarray, "n ..."], labels: Int[Array | np.ndarray, " n"]
    ) -> float:
        """Returns the share of rows whose predicted class is the given one."""
        return float(np.mean(np.asarray(self.predict(x)) == np.asarray(labels)))

    def save(self, path: str | os.PathLike) -> None:
        """Writes parameters and shapes to one file, arrays and JSON only; see `load_classifier`.

        A file that is there already is replaced once the new one is complete.
        """
        leaves = jax.tree.leaves_with_path(self.params)
        arrays = {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}
        settings = np.array(json.dumps({"format": FORMAT, "input_dim": self.input_dim}))
        partial = Path(f"{os.fspath(path)}.partial")
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, settings=settings, **jax.device_get(arrays))
        partial.replace(path)

    def _check(self, x: Array | np.ndarray) -> None:
        if x.shape[1:] != self.input_dim:
            raise ValueError(
                f"x has rows of shape {x.shape[1:]}, the classifier was trained on "
                f"{self.input_dim}: give it examples of its own modality"
            )


def load_classifier(path: str | os.PathLike) -> Classifier:
    """Returns the classifier that `Classifier.save` wrote; the file cannot hold code.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no classifier's.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    settings = json.loads(str(arrays.pop("settings", "{}")))
    if settings.get("format") != FORMAT:
        raise ValueError(
            f"{path} has the format {settings.get('format')!r}, expected {FORMAT!r}: give a file "
            "that Classifier.save wrote"
        )
    num_inputs, num_hidden = arrays["hidden/0/kernel"].shape
    _, num_classes = arrays["logits/kernel"].shape
    graphdef, shapes = nnx.split(
        nnx.eval_shape(lambda: _MLP(num_inputs, num_hidden, num_classes, rngs=nnx.Rngs(0)))
    )
    leaves, treedef = jax.tree.flatten_with_path(nnx.to_pure_dict(shapes))
    names = [jax.tree_util.keystr(place, simple=True, separator="/") for place, _ in leaves]
    params = jax.tree.unflatten(treedef, [jnp.asarray(arrays[name]) for name in names])
    return Classifier(params, graphdef, tuple(settings["input_dim"]))


def train_classifier(
    x: Float[Array | np.ndarray, "n ..."],
    labels: Int[Array | np.ndarray, " _n"],
    *,
    num_classes: int,
    key: PRNGKeyArray,
    num_steps: int = 1000,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    num_hidden: int = 256,
) -> Classifier:
    """Trains a classifier with two hidden layers, for examples of any shape with values in 0 to 1.

    AdamW on the cross entropy, its learning rate falling to 0 along a cosine, every batch drawn
    with replacement; all steps are one compiled scan. It takes two seconds on two CPU cores for
    14,000 images of 16x16x3, and classifies 97% of unseen PolyDigits.

    Args:
        x: training examples `[n, *input_dim]`: images, one-hot text, ...
        labels: their classes, `0, ..., num_classes - 1`.
        num_classes: how many classes there are.
        key: of initial parameters and batches.
        num_steps: training steps.
        batch_size: examples per step.
        learning_rate: of the first step.
        num_hidden: units in each hidden layer.

    Raises:
        ValueError: if a label is not a class, or x and labels differ in length.
    """
    if len(x) != len(labels):
        raise ValueError(
            f"x has {len(x)} rows and labels has {len(labels)}: give one label per row"
        )
    if np.min(labels) < 0 or np.max(labels) >= num_classes:
        raise ValueError(
            f"labels run from {np.min(labels)} to {np.max(labels)}: with "
            f"num_classes={num_classes} they must lie in 0 to {num_classes - 1}"
        )
    input_dim = x.shape[1:]
    init_key, batch_key = jax.random.split(key)
    network = _MLP(int(np.prod(input_dim)), num_hidden, num_classes, rngs=nnx.Rngs(init_key))
    graphdef, state = nnx.split(network)
    keys = jax.random.split(batch_key, num_steps)
    params = _train(graphdef, nnx.to_pure_dict(state), x, labels, keys, batch_size, learning_rate)
    return Classifier(params, graphdef, input_dim)


@functools.partial(jax.jit, static_argnames=("graphdef", "batch_size"))
def _train(graphdef, params, x, labels, keys, batch_size, learning_rate):
    optimizer = optax.adamw(optax.cosine_decay_schedule(learning_rate, len(keys)))

    def loss_fn(params, rows):
        logits = nnx.merge(graphdef, params, copy=True)(x[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

    def step(carry, key):
        params, opt_state = carry
        rows = jax.random.randint(key, (batch_size,), 0, len(x))
        grads = jax.grad(loss_fn)(params, rows)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), keys)
    return params


@jax.jit
def _predict(classifier: Classifier, x: Float[Array, "n ..."]) -> Int[Array, " n"]:
    network = nnx.merge(classifier.graphdef, classifier.params, copy=True)
    return network(x).argmax(axis=-1)


@jax.jit
def _features(classifier: Classifier, x: Float[Array, "n ..."]) -> Float[Array, "n hidden"]:
    return nnx.merge(classifier.graphdef, classifier.params, copy=True).features(x)
