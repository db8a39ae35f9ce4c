"""Digit scenes: their pictures, splits and pairs."""

import numpy as np
import pytest
from helpers.official_files import TEST_LABELS, TRAIN_LABELS

from experiments.digit_scenes import (
    BRIGHTNESS,
    SPACING,
    contrasting_colours,
    digit_scenes,
    draw_scenes,
    grounds,
    mnist_scenes,
    paint,
    place_neighbours,
    split_photo,
)
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data import Splits, mnist

PHOTO = np.random.default_rng(1).integers(0, 256, (50, 200, 3), np.uint8)


@pytest.fixture(scope="module", autouse=True)
def photographs():
    """Two small photographs in the place of those of scikit-image."""
    photos = {"noise": PHOTO, "flat": np.full((40, 160, 3), 90, np.uint8)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.digit_scenes.load_backgrounds", lambda paths: photos)
        yield


@pytest.fixture(scope="module")
def digits(data_dir) -> Splits:
    return mnist(data_dir)


@pytest.fixture(scope="module")
def scenes(digits) -> Splits:
    return digit_scenes(digits)


def bars(num: int) -> MultimodalArrays:
    """Returns digits of two classes: a bar that lies (0) or stands (1) at the centre."""
    labels = np.arange(num, dtype=np.int32) % 2
    images = np.zeros((num, 28, 28, 1), np.uint8)
    images[labels == 0, 12:16, 4:24] = 255
    images[labels == 1, 4:24, 12:16] = 255
    return MultimodalArrays({"image": images}, labels)


def test_scenes_are_pictures_of_the_digits_in_their_order(scenes):
    for found, labels in zip(scenes, (TRAIN_LABELS, TEST_LABELS), strict=True):
        assert found.data["image"].shape == (len(labels), 32, 32, 3)
        assert found.data["image"].dtype == np.uint8
        np.testing.assert_array_equal(found.labels, labels)


def test_scenes_are_the_same_in_every_call(digits, scenes):
    for found, again in zip(scenes, digit_scenes(digits), strict=True):
        np.testing.assert_array_equal(found.data["image"], again.data["image"])


def test_scenes_of_one_digit_differ():
    same = MultimodalArrays({"image": np.repeat(bars(1).data["image"], 50, axis=0)}, np.zeros(50))
    pictures = draw_scenes(same, [PHOTO], seed=0).data["image"]
    assert len(np.unique(pictures.reshape(50, -1), axis=0)) == 50
    assert (draw_scenes(same, [PHOTO], seed=1).data["image"] != pictures).any()


@pytest.mark.parametrize("changed", [0, 1])
def test_a_split_does_not_depend_on_digits_of_the_other(digits, scenes, changed):
    images = 255 - digits[changed].data["image"]
    others = MultimodalArrays({"image": images}, digits[changed].labels)
    found = digit_scenes(digits._replace(**{Splits._fields[changed]: others}))
    assert (found[changed].data["image"] != scenes[changed].data["image"]).any()
    kept = 1 - changed
    np.testing.assert_array_equal(found[kept].data["image"], scenes[kept].data["image"])


def test_splits_share_no_part_of_a_photograph():
    train, test = split_photo(PHOTO)
    np.testing.assert_array_equal(np.concatenate([train, test], axis=1), PHOTO)
    assert (train.shape[1], test.shape[1]) == (150, 50)


def test_the_label_is_that_of_the_central_digit():
    digits = bars(400)
    pictures = draw_scenes(digits, [np.full((40, 40, 3), 90, np.uint8)], seed=0).data["image"]
    centre = pictures[:, 8:24, 8:24] @ BRIGHTNESS
    # A bar makes rows differ if it lies, and columns if it stands.
    rows, columns = (centre.mean(axis).std(1) for axis in (2, 1))
    assert ((columns > rows) == digits.labels).mean() > 0.95


def test_neighbours_are_at_the_sides_of_their_digit_and_may_be_absent():
    centre = np.full((2, 28, 28), 3, np.uint8)
    sides = np.stack([np.full((2, 28, 28), 1, np.uint8), np.full((2, 28, 28), 5, np.uint8)])
    strips = place_neighbours(centre, sides, np.array([[True, False], [True, False]]))
    assert strips.shape == (2, 28, 28 + 2 * SPACING)
    runs = [1] * 20 + [3] * 20 + [5] * 28  # the brighter digit is seen where two overlap
    np.testing.assert_array_equal(strips[0], np.broadcast_to(runs, (28, 68)))
    runs = [0] * 20 + [3] * 28 + [0] * 20
    np.testing.assert_array_equal(strips[1], np.broadcast_to(runs, (28, 68)))


def test_digits_are_lighter_or_darker_than_their_ground_by_the_contrast():
    rng = np.random.default_rng(0)
    colours = rng.uniform(0, 255, (1000, 3)).astype(np.float32)
    contrast = rng.uniform(30, 120, 1000).astype(np.float32)
    found = contrasting_colours(colours, contrast, rng)
    assert -1e-3 <= found.min() <= found.max() <= 255 + 1e-3
    difference = (found - colours) @ BRIGHTNESS
    np.testing.assert_allclose(np.abs(difference), contrast, atol=1e-3)
    assert 0.3 < (difference > 0).mean() < 0.7


def test_grounds_show_through_where_there_is_no_digit():
    rng = np.random.default_rng(0)
    flat = np.full((40, 40, 3), 100, np.uint8)
    ground = grounds([flat, flat + 100], 30, rng)
    assert set(np.unique(ground)) == {100, 200}
    opacity = np.zeros((30, 32, 32), np.float32)
    opacity[:, :, :4] = 1
    painted = paint(opacity, ground, rng)
    np.testing.assert_allclose(painted[:, :, 4:], ground[:, :, 4:], atol=1e-3)
    np.testing.assert_allclose(np.ptp(painted[:, :, :4], axis=(1, 2)), 0, atol=1e-3)


def test_pairs_share_their_class_and_depend_on_the_seed(data_dir, scenes):
    pairs = mnist_scenes(data_dir, num_pairings=2)
    assert {name: x.shape[1:] for name, x in pairs.train.data.items()} == {
        "mnist": (28, 28, 1),
        "scene": (32, 32, 3),
    }
    for split, found in enumerate(pairs):
        rows = {name: column.index for name, column in found.data.items()}
        for index in rows.values():
            np.testing.assert_array_equal(scenes[split].labels[index], found.labels)
        shown = scenes[split].data["image"][rows["scene"]]
        np.testing.assert_array_equal(found.data["scene"][:], shown)
    other = mnist_scenes(data_dir, num_pairings=2, seed=1)
    assert (other.train.data["scene"].index != pairs.train.data["scene"].index).any()


def test_wrong_arguments_are_named(data_dir, tmp_path):
    with pytest.raises(ValueError, match="seed is -1"):
        mnist_scenes(data_dir, seed=-1)
    with pytest.raises(ValueError, match="num_pairings is 0"):
        mnist_scenes(data_dir, num_pairings=0)
    with pytest.raises(FileNotFoundError, match="lacks mnist"):
        mnist_scenes(tmp_path)
