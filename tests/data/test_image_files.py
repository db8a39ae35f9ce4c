"""Image files as a column: what is decoded, and what is refused."""

import sys

import numpy as np
import pytest
from PIL import Image

from mmvae_jax.data import ImageFiles, MultimodalArrays, take

SIZE = 3
PIXELS = np.random.default_rng(0).integers(0, 256, (SIZE, 5, 4, 3), np.uint8)


@pytest.fixture
def files(tmp_path):
    files = [tmp_path / f"{row}.png" for row in range(SIZE)]
    for file, image in zip(files, PIXELS, strict=True):
        Image.fromarray(image).save(file)
    return files


def test_grey_images_have_one_channel(tmp_path):
    Image.fromarray(PIXELS[0, ..., 0]).save(tmp_path / "grey.png")
    column = ImageFiles([tmp_path / "grey.png"])
    np.testing.assert_array_equal(column[:], PIXELS[:1, ..., :1], strict=True)


def test_images_with_a_palette_have_colour_and_bits_are_grey(tmp_path):
    rgb = PIXELS[0] // 64 * 64
    Image.fromarray(rgb).quantize(256).save(tmp_path / "palette.png")
    Image.fromarray(rgb[..., 0] > 64).save(tmp_path / "bits.png")
    palette, bits = (ImageFiles([tmp_path / name]) for name in ("palette.png", "bits.png"))
    np.testing.assert_array_equal(palette[:][0], rgb)
    np.testing.assert_array_equal(bits[:][0, ..., 0], 255 * (rgb[..., 0] > 64))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((5, 6, 3), np.uint8), r"odd\.png has .* \(5, 6, 3\)"),
        (np.zeros((5, 4), np.uint8), r"odd\.png has .* \(5, 4, 1\)"),
        (np.zeros((5, 4, 4), np.uint8), r"odd\.png has Pillow's mode 'RGBA'"),
        (np.zeros((5, 4), np.uint16), r"odd\.png has Pillow's mode 'I;16'"),
    ],
    ids=["size", "grey", "transparency", "sixteen_bits"],
)
def test_images_that_do_not_fit_are_refused_when_read(tmp_path, files, pixels, message):
    Image.fromarray(pixels).save(tmp_path / "odd.png")
    dataset = MultimodalArrays({"image": ImageFiles([*files, tmp_path / "odd.png"])})
    assert len(take(dataset, np.arange(SIZE)).data["image"]) == SIZE
    with pytest.raises(ValueError, match=message):
        take(dataset, np.array([0, SIZE]))


def test_damaged_images_are_named(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    file = tmp_path / "cut.png"
    Image.fromarray(pixels).save(file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut\.png is damaged"):
        ImageFiles([file], (40, 40, 3))[:]


def test_the_shape_of_images_can_be_demanded(files):
    with pytest.raises(ValueError, match=r"0\.png has .* \(5, 4, 3\)"):
        ImageFiles(files, (28, 28, 1))[:1]


@pytest.mark.parametrize("files", [[], "images"], ids=["none", "folder"])
def test_no_list_of_images_is_refused(files):
    with pytest.raises(ValueError, match="files is"):
        ImageFiles(files)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="Pillow"):
        ImageFiles([tmp_path / "file"])
