"""Digit scenes: MNIST digits in colour on photographs, with parts of their neighbours in view.

A stand-in for SVHN that is made from MNIST and from the photographs that scikit-image installs. As
in a crop of a house number, the digit of the label is near the centre, with parts of other digits
at its left and right. Place, size, slant, colours, contrast, light and sharpness differ from scene
to scene, and the digit is lighter or darker than its ground.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageFilter

from experiments.make_polymnist import Photo, crop, load_backgrounds
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_at_least
from mmvae_jax.data import Splits, mnist
from mmvae_jax.data.datasets.files import Folder
from mmvae_jax.data.pairing import pair_images

#: Height and width of a scene, those of SVHN.
SIZE = 32
#: Number of scenes that are drawn at once, which bounds the memory.
CHUNK = 4096

#: Pixels of MNIST between the centres of neighbours; digits are 20 pixels high and wide.
SPACING = 20
#: Probability of a neighbour at the left, and of one at the right.
NEIGHBOUR_SHARE = 0.75
#: Smallest and largest number of pixels of a scene per pixel of MNIST.
SIZES = (0.85, 1.35)
#: Smallest and largest width of a digit, relative to its width in MNIST at the same height.
WIDTHS = (0.75, 1.1)
#: Standard deviations of the turn, in radians, and of the slant, in columns per row.
TURN, SLANT = 0.1, 0.12
#: Standard deviation of the shift along each axis, and the largest shift, in pixels.
SHIFT, MAX_SHIFT = 1.8, 4

#: Share of a photograph's columns, from the left, for the grounds of training scenes.
TRAIN_SHARE = 0.75
#: Smallest and largest difference in brightness between a digit and its ground, of 255.
CONTRAST = (40, 115)
#: Largest standard deviation of a ground's brightness, relative to the contrast of its digit.
MAX_TEXTURE = 0.5
#: Standard deviation of red, green and blue around the grey of a digit's brightness.
TINT = 45
#: Standard deviation of the difference in brightness between opposite sides, by uneven light.
LIGHT = 25
#: Largest standard deviation of the blur, in pixels.
MAX_BLUR = 1.2
#: Weights of red, green and blue in the brightness of a colour (ITU-R BT.601).
BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)

Rng = np.random.Generator
Scenes = Float[np.ndarray, "n 32 32 3"]


def mnist_scenes(
    data_dir: Folder | None = None, *, num_pairings: int = 30, seed: int = 0
) -> Splits:
    """Returns MNIST digits and scenes of the same class, paired like MNIST and SVHN.

    Args:
      data_dir: folder of MNIST, as in ``mmvae_jax.data.mnist``.
      num_pairings: number of times that each digit and each scene is used.
      seed: seed of the pairs; the scenes do not depend on it.

    Returns:
      Modalities ``mnist`` ``[n, 28, 28, 1]`` and ``scene`` ``[n, 32, 32, 3]``, bytes.

    Raises:
      FileNotFoundError: if a file of MNIST is missing.
      ValueError: if a file is damaged or an argument is out of range.
      ImportError: if scikit-image is missing.
    """
    seed = check_at_least("seed", seed, 0)
    digits = mnist(data_dir)
    scenes = digit_scenes(digits)

    def pair(split: int) -> MultimodalArrays:
        sources = {"mnist": digits[split], "scene": scenes[split]}
        return pair_images(sources, num_pairings, seed=(seed, split))

    return Splits(pair(0), pair(1))


def digit_scenes(digits: Splits) -> Splits:
    """Returns a scene of every digit, the same scenes in every call.

    Test scenes have no digit, no neighbour and no part of a photograph in common with training
    scenes.

    Args:
      digits: MNIST, from ``mmvae_jax.data.mnist``.

    Returns:
      Modality ``image``, bytes ``[n, 32, 32, 3]``; labels 0 to 9 of the central digits, in the
      order of ``digits``.

    Raises:
      ImportError: if scikit-image is missing.
    """
    train, test = zip(*map(split_photo, load_backgrounds(()).values()), strict=True)
    return Splits(draw_scenes(digits.train, train, seed=0), draw_scenes(digits.test, test, seed=1))


def split_photo(photo: Photo) -> tuple[Photo, Photo]:
    """Returns the left part of a photograph, for training, and the right part, for tests."""
    column = round(TRAIN_SHARE * photo.shape[1])
    return photo[:, :column], photo[:, column:]


def draw_scenes(
    digits: MultimodalArrays, photos: Sequence[Photo], *, seed: int
) -> MultimodalArrays:
    """Returns a scene of every digit, whose neighbours are other digits of the same split.

    Args:
      digits: modality ``image``, bytes ``[n, 28, 28, 1]``, with labels.
      photos: photographs for the grounds, at least 32 pixels wide and high.
      seed: seed of all that differs between scenes.
    """
    rng = np.random.default_rng(seed)
    images = digits.data["image"][:][..., 0]
    scenes = np.empty((len(images), SIZE, SIZE, 3), np.uint8)
    for start in range(0, len(images), CHUNK):
        centre = images[start : start + CHUNK]
        num = len(centre)
        sides = images[rng.integers(len(images), size=(2, num))]
        strips = place_neighbours(centre, sides, rng.random((2, num)) < NEIGHBOUR_SHARE)
        opacity = view(strips, rng)
        painted = paint(opacity, grounds(photos, num, rng), rng)
        scenes[start : start + num] = take_pictures(painted, rng)
    return MultimodalArrays({"image": scenes}, digits.labels)


def place_neighbours(
    centre: UInt8[np.ndarray, "n 28 28"],
    sides: UInt8[np.ndarray, "2 n 28 28"],
    has_side: Bool[np.ndarray, "2 n"],
) -> UInt8[np.ndarray, "n 28 68"]:
    """Returns digits with their left and right neighbours, blank where ``has_side`` is False."""
    num, height, width = centre.shape
    strips = np.zeros((num, height, width + 2 * SPACING), np.uint8)
    shown = [sides[0] * has_side[0, :, None, None], centre, sides[1] * has_side[1, :, None, None]]
    for i, images in enumerate(shown):
        part = strips[:, :, i * SPACING : i * SPACING + width]
        np.maximum(part, images, out=part)
    return strips


def view(strips: UInt8[np.ndarray, "n height width"], rng: Rng) -> Float[np.ndarray, "n 32 32"]:
    """Returns strips in different sizes, widths, turns, slants and places, with values 0 to 1."""
    num, height, width = strips.shape
    # Pillow takes the map from a pixel (x, y) of the picture to its place in the strip.
    size = rng.uniform(*SIZES, (num, 1, 1))
    stretch = np.stack([rng.uniform(*WIDTHS, num), np.ones(num)], -1)[..., None]
    turn, slant = rng.normal(0, [TURN, SLANT], (num, 2)).T
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    shear = np.eye(2) + slant[:, None, None] * [[0, 1], [0, 0]]
    matrix = shear @ (rotation.transpose(2, 0, 1) / (size * stretch))
    place = SIZE / 2 + rng.normal(0, SHIFT, (num, 2, 1)).clip(-MAX_SHIFT, MAX_SHIFT)
    start = np.array([[width / 2], [height / 2]]) - matrix @ place
    views = np.empty((num, SIZE, SIZE), np.float32)
    for i, coefficients in enumerate(np.concatenate([matrix, start], -1).reshape(num, 6).tolist()):
        seen = Image.fromarray(strips[i]).transform(
            (SIZE, SIZE), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
        )
        views[i] = np.asarray(seen)
    return views / 255


def grounds(photos: Sequence[Photo], num: int, rng: Rng) -> Scenes:
    """Returns random crops of random photographs, with values from 0 to 255."""
    chosen = rng.integers(len(photos), size=num)
    crops = np.empty((num, SIZE, SIZE, 3), np.float32)
    for i, photo in enumerate(photos):
        rows = np.flatnonzero(chosen == i)
        crops[rows] = crop(photo, len(rows), rng, SIZE)
    return crops


def paint(opacity: Float[np.ndarray, "n 32 32"], ground: Scenes, rng: Rng) -> Scenes:
    """Returns grounds with digits of one colour each, readable against their ground."""
    num = len(opacity)
    contrast = rng.uniform(*CONTRAST, num).astype(np.float32)
    mean = ground.mean((1, 2))
    texture = (ground @ BRIGHTNESS).std((1, 2))
    faded = np.minimum(1, MAX_TEXTURE * contrast / np.maximum(texture, 1))
    ground = mean[:, None, None] + faded[:, None, None, None] * (ground - mean[:, None, None])
    colour = contrasting_colours(mean, contrast, rng)
    return ground + opacity[..., None] * (colour[:, None, None] - ground)


def contrasting_colours(
    colours: Float[np.ndarray, "n 3"], contrast: Float[np.ndarray, " n"], rng: Rng
) -> Float[np.ndarray, "n 3"]:
    """Returns random colours that are lighter or darker than the given ones by the contrast."""
    brightness = colours @ BRIGHTNESS
    sign = rng.choice([-1, 1], len(colours))
    is_possible = np.abs(brightness + sign * contrast - 127.5) <= 127.5
    wanted = (brightness + np.where(is_possible, sign, -sign) * contrast)[:, None]
    tint = rng.normal(0, TINT, colours.shape)
    tint -= (tint @ BRIGHTNESS)[:, None]  # changes no brightness, because the weights sum to 1
    room = np.where(tint > 0, 255 - wanted, wanted) / np.abs(tint)
    return (wanted + tint * room.min(-1, keepdims=True).clip(0, 1)).astype(np.float32)


def take_pictures(scenes: Scenes, rng: Rng) -> UInt8[np.ndarray, "n 32 32 3"]:
    """Returns scenes as bytes, in slanting light and more or less out of focus."""
    num = len(scenes)
    slope = rng.normal(0, LIGHT, (2, num, 1, 1, 1)).astype(np.float32)
    side = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)
    light = slope[0] * side[:, None, None] + slope[1] * side[:, None]
    pictures = (scenes + light).clip(0, 255).round().astype(np.uint8)
    for i, radius in enumerate(rng.uniform(0, MAX_BLUR, num).tolist()):
        blurred = Image.fromarray(pictures[i]).filter(ImageFilter.GaussianBlur(radius))
        pictures[i] = np.asarray(blurred)
    return pictures
