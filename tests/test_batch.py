"""What a batch must look like, and what is said when it does not."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmvae_jax as mm
from mmvae_jax.batch import observe

CONFIG = mm.MMVAEConfig(
    input_dims={"image": (4, 4, 3), "word": (5, 7)}, decoders_dist={"word": "categorical"}
)
IMAGE = np.ones((3, 4, 4, 3), np.float32)
WORD = np.eye(7, dtype=np.float32)[np.arange(15).reshape(3, 5) % 7]
ON = np.ones(3, bool)


def test_missing_data_become_zeros():
    mask = np.array([True, False, True])
    image = np.where(mask[:, None, None, None], IMAGE, np.nan)
    observed = observe(
        CONFIG, mm.Batch(data={"image": image, "word": WORD}, mask={"image": mask, "word": ON})
    )
    np.testing.assert_array_equal(observed.mask, [mask, ON])
    np.testing.assert_array_equal(observed.data["image"].sum((1, 2, 3)), [48, 0, 48])


def test_integer_classes():
    batch = mm.Batch(data={"image": IMAGE, "word": np.zeros((3, 5), np.int32)})
    assert observe(CONFIG, batch).data["word"].shape == (3, 5)


def test_absent_modalities_count_as_missing_where_allowed():
    observed = observe(CONFIG, mm.Batch(data={"word": WORD}), allow_absent=True)
    np.testing.assert_array_equal(observed.mask, [~ON, ON])
    assert "image" not in observed.data


def test_batch_is_a_pytree():
    batch = mm.Batch(data={"image": IMAGE, "word": WORD}, mask={"image": ON, "word": ON})
    doubled = jax.tree.map(lambda a: jnp.concatenate([a, a]), batch)
    assert isinstance(doubled, mm.Batch)
    assert doubled.data["image"].shape == (6, 4, 4, 3)


@pytest.mark.parametrize(
    ("data", "mask", "message"),
    [
        ({"image": IMAGE}, None, r"batch.data has the modalities \['image'\].*missing \['word'\]"),
        ({"image": IMAGE, "word": WORD, "x": WORD}, None, r"unknown \['x'\]"),
        (
            {"image": (255 * IMAGE).astype(np.int32), "word": WORD},
            None,
            r"batch.data\['image'\] has dtype int32, expected a floating type, or uint8 for",
        ),
        (
            {"image": IMAGE.transpose(0, 3, 1, 2), "word": WORD},
            None,
            r"batch.data\['image'\] has shape \(3, 3, 4, 4\), expected \('b', 4, 4, 3\).*channels",
        ),
        (
            {"image": IMAGE[0], "word": WORD},
            None,
            r"batch.data\['image'\] has shape \(4, 4, 3\), expected \('b', 4, 4, 3\)",
        ),
        (
            {"image": IMAGE, "word": np.zeros((3, 7), np.int32)},
            None,
            r"batch.data\['word'\] has shape \(3, 7\), expected \('b', 5\)",
        ),
        ({"image": IMAGE[:2], "word": WORD}, None, "numbers of examples {'image': 2, 'word': 3}"),
        (
            {"image": IMAGE, "word": WORD},
            {"image": ON},
            r"batch.mask has the modalities \['image'\].*missing \['word'\]",
        ),
        (
            {"image": IMAGE, "word": WORD},
            {"image": ON.astype(np.float32), "word": ON},
            r"batch.mask\['image'\] has dtype float32, expected bool",
        ),
        (
            {"image": IMAGE, "word": WORD},
            {"image": ON, "word": ON[:2]},
            r"batch.mask\['word'\] has shape \(2,\), expected \(3,\)",
        ),
    ],
)
def test_wrong_batches(data, mask, message):
    """The same message from the step, at trace time, as from the check itself."""
    with pytest.raises(ValueError, match=message):
        observe(CONFIG, mm.Batch(data=data, mask=mask))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda batch: observe(CONFIG, batch), mm.Batch(data=data, mask=mask))


def test_not_a_batch():
    with pytest.raises(ValueError, match=r"batch is a dict: give mm.Batch"):
        inspect.unwrap(observe)(CONFIG, {"image": IMAGE, "word": WORD})  # without type checks


def test_mask_of_an_absent_modality():
    batch = mm.Batch(data={"word": WORD}, mask={"image": ON, "word": ON})
    with pytest.raises(ValueError, match=r"'image' is observed, but batch.data lacks it"):
        observe(CONFIG, batch, allow_absent=True)
