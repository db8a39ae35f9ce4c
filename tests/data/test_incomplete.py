"""Missing modalities: what is hidden, how often, and that no value changes."""

import chex
import numpy as np
import pytest

import mmvae_jax as mm
from mmvae_jax.batch import observe
from mmvae_jax.data import MultimodalArrays, incomplete_batch, missing_at_random, missing_by_label

CONFIG = mm.MMVAEConfig(
    input_dims={"image": (2, 2, 1), "word": (3, 5), "sound": (4,)},
    decoders_dist={"word": "categorical"},
)
IMAGE = np.arange(4, dtype=np.float32).reshape(2, 2, 1)
SOUND = np.array([0.5, 1, 2, 3], np.float32)
CLASSES = np.array([4, 0, 2])


def dataset_of(num_examples, num_modalities, mask=None, labels=None):
    rng = np.random.default_rng(0)
    data = {f"m{m}": rng.normal(size=(num_examples, 2)) for m in range(num_modalities)}
    return MultimodalArrays(data, labels, mask)


def test_incomplete_batch_fills_and_masks():
    """Missing modalities hold zeros of their shape, however they are left out."""
    batch = incomplete_batch(
        CONFIG, {"sound": [None, SOUND.tolist()], "image": [IMAGE, None], "word": None}
    )
    assert tuple(batch.data) == tuple(batch.mask) == CONFIG.modalities
    chex.assert_trees_all_equal(
        batch,
        mm.Batch(
            data={
                "image": np.stack([IMAGE, 0 * IMAGE]),
                "word": np.zeros((2, 3, 5), np.float32),
                "sound": np.stack([0 * SOUND, SOUND]),
            },
            mask={
                "image": np.array([True, False]),
                "word": np.array([False, False]),
                "sound": np.array([False, True]),
            },
        ),
    )
    observe(CONFIG, batch)  # Training accepts it, because every modality has an array.


def test_incomplete_batch_of_whole_arrays_and_left_out_modalities():
    batch = incomplete_batch(CONFIG, {"sound": np.stack([SOUND, 2 * SOUND])})
    np.testing.assert_array_equal(batch.data["sound"], [SOUND, 2 * SOUND])
    observed = {name: mask.tolist() for name, mask in batch.mask.items()}
    assert observed == {"image": [False] * 2, "word": [False] * 2, "sound": [True] * 2}
    assert batch.data["sound"].dtype == np.float32


def test_incomplete_batch_of_integer_classes():
    batch = incomplete_batch(CONFIG, {"word": [None, CLASSES], "sound": [SOUND, None]})
    np.testing.assert_array_equal(batch.data["word"], [0 * CLASSES, CLASSES])
    assert np.issubdtype(batch.data["word"].dtype, np.integer)
    observe(CONFIG, batch)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"img": [IMAGE]}, r"data has the modalities \['img'\]"),
        ({}, "data has no example"),
        ({"image": None, "word": None}, "data has no example"),
        ({"image": [], "word": []}, "data has no example"),
        (
            {"image": [IMAGE, None], "sound": [SOUND]},
            r"data has the numbers of examples \{'image': 2, 'sound': 1\}",
        ),
        (
            {"image": [None, IMAGE.transpose(2, 0, 1)]},
            r"data\['image'\]\[1\] is float32\[1, 2, 2\]",
        ),
        ({"sound": [SOUND[:3]]}, r"data\['sound'\]\[0\] is float32\[3\]"),
        ({"sound": [1.0]}, r"data\['sound'\]\[0\] is float64\[\]"),
        (
            {"word": [np.eye(5, dtype=int)[CLASSES]]},
            r"data\['word'\]\[0\] is int64\[3, 5\]",
        ),
    ],
)
def test_incomplete_batch_errors(data, message):
    with pytest.raises(ValueError, match=message):
        incomplete_batch(CONFIG, data)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("num_modalities", [1, 2, 5])
def test_missing_at_random_hides_the_share_that_it_says(share, num_modalities):
    """Each modality is hidden with probability share - share^M / M, and a pair as follows.

    A pair (M = 5) is hidden with probability share^2 - 2 share^M / M: both draws are below
    ``share``, unless all are and one of the two is the largest.
    """
    size = 20_000
    hidden = ~mask_of(missing_at_random(dataset_of(size, num_modalities), share, seed=1))
    kept_last = share**num_modalities / num_modalities
    assert not hidden.all(0).any()
    assert_frequency(hidden, share - kept_last)
    if num_modalities == 5:
        assert_frequency(hidden[:1] & hidden[1:], share**2 - 2 * kept_last)


def assert_frequency(events, probability):
    error = np.sqrt(probability * (1 - probability) / events.shape[1])
    np.testing.assert_allclose(events.mean(1), probability, atol=4 * error)


def mask_of(dataset):
    return np.stack(list(dataset.mask.values()))


def test_missing_at_random_extremes():
    """Nothing hidden at share 0; at share 1 one modality stays, each as often as the others."""
    dataset = dataset_of(20_000, 3)
    assert mask_of(missing_at_random(dataset, 0.0, seed=0)).all()
    kept = mask_of(missing_at_random(dataset, 1.0, seed=0))
    np.testing.assert_array_equal(kept.sum(0), 1)
    assert_frequency(kept, 1 / 3)


def test_missing_at_random_of_what_is_observed():
    """What was missing stays so; the last *observed* modality of an example is never hidden."""
    size = 20_000
    before = {"m0": np.arange(size) % 2 == 0, "m1": np.ones(size, bool), "m2": np.zeros(size, bool)}
    before["m1"][0] = before["m0"][0] = False  # Nothing to hide, and no error.
    dataset = dataset_of(size, 3, mask=before)
    after = missing_at_random(dataset, 0.6, seed=2)
    before, after = np.stack(list(before.values())), mask_of(after)
    assert not (after & ~before).any()
    np.testing.assert_array_equal(after.any(0), before.any(0))
    both = before.sum(0) == 2
    assert_frequency(~after[:2, both], 0.6 - 0.6**2 / 2)


def test_missing_at_random_is_a_function_of_the_seed():
    dataset = dataset_of(100, 2)
    first, again, other = (missing_at_random(dataset, 0.5, seed=seed) for seed in (3, 3, 4))
    chex.assert_trees_all_equal(first, again)
    assert (mask_of(first) != mask_of(other)).any()


@pytest.mark.parametrize(
    ("share", "seed", "message"),
    [
        (1.5, 0, "share is 1.5"),
        (float("nan"), 0, "share is nan"),
        (-0.1, 0, "share is -0.1"),
        (0.5, -1, "seed is -1"),
    ],
)
def test_missing_at_random_errors(share, seed, message):
    with pytest.raises(ValueError, match=message):
        missing_at_random(dataset_of(3, 2), share, seed=seed)


def test_missing_by_label():
    labels = np.array([0, 1, 2, 1, 3])
    mask = {"m0": np.array([True, True, True, True, False]), "m1": np.ones(5, bool)}
    dataset = dataset_of(5, 2, mask=mask, labels=labels)
    after = missing_by_label(dataset, {"m0": {1, 7}, "m1": [0, 2]}).mask
    np.testing.assert_array_equal(after["m0"], [True, False, True, False, False])
    np.testing.assert_array_equal(after["m1"], [False, True, False, True, True])


@pytest.mark.parametrize(
    ("labels", "hidden", "message"),
    [
        ([0, 1, 2], {"m0": {1}, "m1": {1, 2}}, r"hidden is .* 1 examples of the labels \[1\]"),
        ([0, 0, 2], {"m0": {0}, "m1": {0, 2}}, r"hidden is .* 2 examples of the labels \[0\]"),
        ([0, 1, 2], {"image": {1}}, r"hidden has the unknown modalities \['image'\]"),
        (None, {"m0": {1}}, "labels is None"),
        ([[0], [1], [2]], {"m0": {1}}, r"labels is an array of shape \(3, 1\)"),
    ],
)
def test_missing_by_label_errors(labels, hidden, message):
    dataset = dataset_of(3, 2, labels=None if labels is None else np.array(labels))
    with pytest.raises(ValueError, match=message):
        missing_by_label(dataset, hidden)


def test_missing_by_label_accepts_empty_examples():
    """Examples without any modality are no error, and others keep theirs."""
    mask = {"m0": np.array([True, False]), "m1": np.array([True, False])}
    dataset = dataset_of(2, 2, mask=mask, labels=np.array([0, 1]))
    np.testing.assert_array_equal(missing_by_label(dataset, {"m0": {1}}).mask["m1"], [True, False])


def test_values_stay_as_they_are():
    dataset = dataset_of(10, 2, labels=np.arange(10))
    for after in (missing_at_random(dataset, 0.5, seed=0), missing_by_label(dataset, {"m1": {3}})):
        assert after.labels is dataset.labels
        assert all(after.data[name] is dataset.data[name] for name in dataset.data)
    assert dataset.mask is None
