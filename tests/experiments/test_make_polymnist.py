"""PolyMNIST from MNIST and photographs: the recipe, the files, and the command."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from helpers.official_files import TEST_LABELS, TRAIN_LABELS, real_mnist, write_mnist, write_png

from experiments.command_line import run_command
from experiments.make_polymnist import (
    THRESHOLD,
    MakePolyMNISTConfig,
    crop,
    first_of_mnist,
    into_quadrants,
    invert,
    load_backgrounds,
    main,
    make_modalities,
)
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data import ImageFiles, mnist, polymnist, take
from mmvae_jax.data.datasets.polymnist import LABELS

SIZES = [(40, 50), (28, 28), (60, 30)]


def photo(m: int) -> np.ndarray:
    return np.random.default_rng(m).integers(0, 256, (*SIZES[m], 3), np.uint8)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of MNIST and of photographs."""
    root = tmp_path_factory.mktemp("sources")
    write_mnist(root / "data/mnist")
    for m in range(3):
        write_png(root / "photos" / f"{m}.png", photo(m))
    (root / "photos/notes.txt").write_text("no photograph")
    return root / "data", root / "photos"


@pytest.fixture(scope="module")
def made(sources, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "polymnist"
    main(MakePolyMNISTConfig(out=out, data_dir=sources[0], backgrounds=(sources[1],), num_train=60))
    return out


def ink(image: np.ndarray, background: np.ndarray) -> set[bytes]:
    """Returns the digit masks that turn some crop of the background into the image."""
    windows = np.lib.stride_tricks.sliding_window_view(background, (28, 28), axis=(0, 1))
    pieces = windows.transpose(0, 1, 3, 4, 2).reshape(-1, 28, 28, 3)
    inverted = (image == 255 - pieces).all(-1)
    fits = (inverted | (image == pieces).all(-1)).all(axis=(1, 2))
    return {mask.tobytes() for mask in inverted[fits]}


def test_an_image_is_an_inverted_crop_of_its_photograph(made, sources):
    digits = mnist(sources[0]).test
    masks = [image.tobytes() for image in digits.data["image"][..., 0] > THRESHOLD]
    test = polymnist(made.parent, num_modalities=3).test
    for m in range(3):
        shown = []
        for image, label in zip(test.data[f"m{m}"][:], test.labels, strict=True):
            (mask,) = ink(image, photo(m))
            shown.append(masks.index(mask))
            assert digits.labels[shown[-1]] == label
        assert sorted(shown) == [*range(len(TEST_LABELS))]  # Every digit once in each modality.


def test_modalities_pair_different_digits():
    labels = np.repeat(np.arange(2, dtype=np.int32), 50)
    # Image `i` is white in its first `i` pixels, which survive on a black photograph.
    images = np.zeros((100, 784), np.uint8)
    images[np.arange(784) < np.arange(100)[:, None]] = 255
    digits = MultimodalArrays({"image": images.reshape(100, 28, 28, 1)}, labels)
    black = [np.zeros((30, 30, 3), np.uint8)] * 2
    shown = [
        (pictures[..., 0] == 255).sum(axis=(1, 2))
        for _, pictures in make_modalities(digits, black, seed=0, split="train")
    ]
    for rows in shown:
        np.testing.assert_array_equal(np.sort(rows), np.arange(100))
        np.testing.assert_array_equal(labels[rows], labels)
    assert (shown[0] == shown[1]).mean() < 0.2  # Two of 100 on average.


def test_pixels_of_exactly_128_are_not_inverted():
    pieces = np.full((1, 28, 28, 3), 10, np.uint8)
    digit = np.full((1, 28, 28), THRESHOLD, np.uint8)
    digit[0, 0, 0] = THRESHOLD + 1
    inverted = invert(pieces, digit)
    assert inverted[0, 0, 0].tolist() == [245] * 3
    assert (inverted.reshape(-1, 3)[1:] == 10).all()


def test_small_digits_have_a_quadrant():
    digits = np.zeros((4, 28, 28), np.uint8)
    digits[:, 10, 6:8], digits[:, 11, 6] = 255, 102  # the mean of 2 x 2 pixels is 153
    quadrants = np.array([0, 1, 2, 3])
    shown = into_quadrants(digits, quadrants)
    expected = [(5, 3), (5, 14 + 3), (14 + 5, 3), (14 + 5, 14 + 3)]
    for image, place in zip(shown, expected, strict=True):
        assert np.argwhere(image).tolist() == [list(place)]
        assert image[place] == 153


def test_modalities_draw_their_quadrants_independently(sources):
    digits = first_of_mnist(mnist(sources[0]).train, None)
    digits = take(digits, np.tile(np.arange(len(digits.labels)), 40))
    black = [np.zeros((30, 30, 3), np.uint8)] * 2
    pairs = make_modalities(digits, black, 0, "train", layout="quadrant")
    places = []
    for _, images in pairs:
        has_ink = images[..., 0].reshape(-1, 2, 14, 2, 14).any((2, 4)).reshape(-1, 4)
        assert (has_ink.sum(1) == 1).all()
        places.append(has_ink.argmax(1))
    counts = np.histogram2d(*places, bins=4)[0]
    assert scipy.stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_crops_come_from_everywhere():
    numbered = np.zeros((30, 31, 3), np.uint8)
    numbered[..., 0], numbered[..., 1] = np.ogrid[:30, :31]
    corners = crop(numbered, 500, np.random.default_rng(0))[:, 0, 0, :2]
    assert len(np.unique(corners, axis=0)) == 3 * 4


def test_the_reader_and_the_manifest_agree_with_the_files(made):
    dataset = polymnist(made.parent, num_modalities=3)
    manifest = json.loads((made / "manifest.json").read_text())
    assert (manifest["num_train"], manifest["layout"]) == (60, "full")
    assert [*manifest["backgrounds"]] == ["m0", "m1", "m2"]
    for split, labels in (("train", TRAIN_LABELS[:60]), ("test", TEST_LABELS)):
        found = getattr(dataset, split)
        np.testing.assert_array_equal(np.sort(found.labels), np.sort(labels))
        for name, column in found.data.items():
            digest = hashlib.sha256(column[:].tobytes()).hexdigest()
            assert manifest["arrays"][f"{split}/{name}.npy"] == digest
        (made / split / LABELS).rename(made / split / "hidden")
    try:
        unpacked = polymnist(made.parent, num_modalities=3)
    finally:
        for split in ("train", "test"):
            (made / split / "hidden").rename(made / split / LABELS)
    for packed, png in zip(dataset, unpacked, strict=True):
        np.testing.assert_array_equal(packed.labels, png.labels)
        for name, column in png.data.items():
            assert isinstance(column, ImageFiles)
            np.testing.assert_array_equal(packed.data[name], column[:])


def test_the_seed_decides_and_a_modality_does_not_depend_on_others(sources):
    digits = first_of_mnist(mnist(sources[0]).train, None)

    def make(num_modalities: int, seed: int) -> dict[str, np.ndarray]:
        photos = [photo(m) for m in range(num_modalities)]
        return dict(make_modalities(digits, photos, seed, "train"))

    three, two = make(3, 0), make(2, 0)
    for name, images in two.items():
        np.testing.assert_array_equal(images, three[name])
    assert (make(2, 1)["m0"] != two["m0"]).any()


def test_digits_are_in_the_readers_order(sources):
    train = mnist(sources[0]).train
    ordered = first_of_mnist(train, None)
    assert ordered.labels[:10].tolist() == [*range(10)]
    again = first_of_mnist(ordered, None)
    np.testing.assert_array_equal(again.labels, ordered.labels)
    np.testing.assert_array_equal(again.data["image"], ordered.data["image"])
    np.testing.assert_array_equal(
        np.sort(first_of_mnist(train, 20).labels), np.sort(take(train, np.arange(20)).labels)
    )


def test_the_command_line_makes_a_data_set_once(sources, tmp_path, made, monkeypatch):
    out = tmp_path / "polymnist"
    flags = ("--out", out, "--data-dir", sources[0], "--num-train", 60, "--layout", "full")
    backgrounds = ("--backgrounds", *sorted(sources[1].glob("*.png")))
    monkeypatch.setattr(sys, "argv", ["make_polymnist", *map(str, flags + backgrounds)])
    run_command(main, MakePolyMNISTConfig, "experiments.make_polymnist")
    for file in sorted(made.rglob("*.npy")):  # files and their folder give the same data set
        assert (out / file.relative_to(made)).read_bytes() == file.read_bytes()
    with pytest.raises(SystemExit, match=r"^error: out is .*, which is not empty"):
        run_command(main, MakePolyMNISTConfig, "experiments.make_polymnist")


def broken(folder: Path) -> None:
    (folder / "0.png").write_bytes(b"no image")
    write_png(folder / "1.png", photo(0))


def small(folder: Path) -> None:
    write_png(folder / "0.png", photo(0)[:27])
    write_png(folder / "1.png", photo(0))


def single(folder: Path) -> None:
    write_png(folder / "0.png", photo(0))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (broken, r"0\.png, which is not a readable image"),
        (small, r"0\.png has 27x50 pixels"),
        (single, r"backgrounds is \["),
    ],
)
def test_wrong_backgrounds_are_named(tmp_path, write, message):
    write(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_backgrounds((tmp_path,))


@pytest.mark.parametrize("num", [0, 76])
def test_wrong_numbers_of_digits_are_named_before_anything_is_written(sources, tmp_path, num):
    out = tmp_path / "out"
    config = MakePolyMNISTConfig(
        out=out, data_dir=sources[0], backgrounds=(sources[1],), num_train=num
    )
    with pytest.raises(ValueError, match=f"num_train or num_test is {num}"):
        main(config)
    assert not out.exists()


def test_a_missing_scikit_image_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ImportError, match=r"backgrounds is \(\)"):
        load_backgrounds(())


def test_the_photographs_of_scikit_image():
    pytest.importorskip("skimage", reason="the default photographs are scikit-image's")
    photos = load_backgrounds(())
    assert len(photos) == 5


def test_from_the_published_mnist(sources, tmp_path):
    out = tmp_path / "polymnist"
    main(
        MakePolyMNISTConfig(
            out=out,
            data_dir=real_mnist(),
            backgrounds=(sources[1],),
            num_train=300,
            num_test=100,
        )
    )
    train = polymnist(tmp_path, num_modalities=3).train
    digits = mnist(real_mnist()).train
    np.testing.assert_array_equal(np.sort(train.labels), np.sort(digits.labels[:300]))
