"""Small crops of photographs that Python packages install, each with a word for its photograph.

Every photograph is cut into cells of a grid. Training crops are from some of the cells and test
crops from the others, so that no pixel is in both.
"""

import zlib
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data import Splits

#: Height and width of a crop.
SIDE = 64
#: Rows and columns of cells, and the number of them that test crops are from.
GRID, NUM_TEST_CELLS = 4, 4

Photo = UInt8[np.ndarray, "height width 3"]


def _scikit_image(name: str) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        import skimage.data  # an optional dependency

        found = getattr(skimage.data, name)()
        return found[0] if isinstance(found, tuple) else found  # a stereo pair

    return read


def _scikit_learn(name: str) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        from sklearn.datasets import load_sample_image

        return load_sample_image(name)

    return read


#: Photographs by word.
SOURCES: dict[str, Callable[[], np.ndarray]] = {
    "astronaut": _scikit_image("astronaut"),
    "brick": _scikit_image("brick"),
    "camera": _scikit_image("camera"),
    "cat": _scikit_image("chelsea"),
    "cell": _scikit_image("cell"),
    "coffee": _scikit_image("coffee"),
    "coins": _scikit_image("coins"),
    "flower": _scikit_learn("flower.jpg"),
    "galaxies": _scikit_image("hubble_deep_field"),
    "grass": _scikit_image("grass"),
    "gravel": _scikit_image("gravel"),
    "moon": _scikit_image("moon"),
    "motorcycle": _scikit_image("stereo_motorcycle"),
    "retina": _scikit_image("retina"),
    "rocket": _scikit_image("rocket"),
    "temple": _scikit_learn("china.jpg"),
    "tissue": _scikit_image("immunohistochemistry"),
}
WORDS = tuple(SOURCES)


def read_photo(word: str) -> Photo:
    """Returns a photograph in three channels, which are equal for one without colour."""
    return np.asarray(Image.fromarray(SOURCES[word]()).convert("RGB"))


def photographs(seed: int, *, train_crops: int = 1, test_crops: int = 8) -> Splits:
    """Returns pictures ``photo [b, 64, 64, 3]`` and their words ``word [b]``, also as labels.

    Args:
      seed: seed of the cells and of the places of the crops.
      train_crops: number of crops of each training cell.
      test_crops: number of crops of each test cell.
    """
    found = ([], [])
    for word in WORDS:
        photo = read_photo(word)
        rng = np.random.default_rng([seed, zlib.crc32(word.encode())])
        cells = np.split(rng.permutation(GRID**2), [GRID**2 - NUM_TEST_CELLS])
        for crops, numbers, count in zip(found, cells, (train_crops, test_crops), strict=True):
            crops += [crop(photo, cell, rng) for cell in numbers for _ in range(count)]
    return Splits(*map(_examples, found))


def crop(photo: Photo, cell: int, rng: np.random.Generator) -> UInt8[np.ndarray, "64 64 3"]:
    """Returns a square at a random place inside of a cell; cells are numbered row by row."""
    sides = np.array(photo.shape[:2]) // GRID
    row, column = sides * divmod(cell, GRID) + rng.integers(sides - SIDE + 1)
    return photo[row : row + SIDE, column : column + SIDE]


def _examples(crops: list[np.ndarray]) -> MultimodalArrays:
    labels = np.repeat(np.arange(len(WORDS)), len(crops) // len(WORDS))
    return MultimodalArrays({"photo": np.stack(crops), "word": labels}, labels=labels)
