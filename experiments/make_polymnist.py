"""PolyMNIST from MNIST and any photographs, by the published recipe.

    python -m experiments.make_polymnist --data-dir FOLDER --out polymnist

An image is a random 28 by 28 crop of its modality's photograph, with inverted colours where the
digit is brighter than 128 of 255 (Sutter, Daunhawer and Vogt, 2021). The digits of a class are
shuffled for every modality, so the images of an example show different handwritings. The output
has PNG files like the published data set, and arrays that ``mmvae_jax.data.polymnist`` memory-maps.

``--layout quadrant`` shrinks each digit and draws its quadrant independently in every modality, so
that the class is shared while place, handwriting and background are private.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image
from tqdm import tqdm

from experiments import runs
from experiments.command_line import run_command
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_choice
from mmvae_jax.data import Splits, mnist, num_examples, take
from mmvae_jax.data.datasets.polymnist import IMAGE_SHAPE, LABELS, SPLITS

Layout = Literal["full", "quadrant"]

RECIPES: dict[Layout, str] = {
    "full": "28x28 crop of the photograph, inverted where the MNIST digit is > 128",
    "quadrant": (
        "28x28 crop of the photograph, inverted where the MNIST digit, averaged over 2x2 pixels "
        "and put into a random quadrant of each modality, is > 128"
    ),
}
THRESHOLD = 128
#: Colour photographs that scikit-image installs.
SCIKIT_IMAGE = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry")
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
MANIFEST = "manifest.json"
#: Number of training digits of ``make_part``.
NUM_OF_PART = 20_000

Photo = UInt8[np.ndarray, "height width 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MakePolyMNISTConfig:
    """Create a PolyMNIST data set from MNIST and photographs, one per modality."""

    out: Path
    """Folder of the data set, new or empty; call it polymnist, the name that readers expect."""
    data_dir: Path | None = None
    """Folder of MNIST; None is $MMVAE_DATA, or a download."""
    backgrounds: tuple[Path, ...] = ()
    """Photographs, one per modality, or a folder of them; none are five of scikit-image."""
    layout: Layout = "full"
    """Digits of full size, or small ones in a random quadrant of each modality."""
    seed: int = 0
    """Seed of the pairings and the crops."""
    num_train: int | None = None
    """Number of training digits, the first of MNIST; None is all 60,000."""
    num_test: int | None = None
    """Number of test digits, the first of MNIST; None is all 10,000."""

    def __post_init__(self) -> None:
        check_choice("layout", self.layout, tuple(RECIPES))


def main(config: MakePolyMNISTConfig) -> None:
    """Writes the data set to ``out``.

    Raises:
      FileNotFoundError: if a file of MNIST is missing.
      ValueError: if ``out`` is not empty, or photographs are unreadable, too small or too few.
    """
    runs.check_new_folder(config.out)
    photos = load_backgrounds(config.backgrounds)
    splits = mnist(config.data_dir)
    hashes: dict[str, str] = {}
    chosen = zip(SPLITS, splits, (config.num_train, config.num_test), strict=True)
    for split, digits in [(split, first_of_mnist(digits, num)) for split, digits, num in chosen]:
        labels = np.asarray(digits.labels)
        pictures = make_modalities(
            digits, list(photos.values()), config.seed, split, layout=config.layout
        )
        for name, images in pictures:
            write_png(config.out / split / name, images, labels)
            hashes |= _save(config.out, f"{split}/{name}.npy", images)
        # Last, because readers take arrays with labels for complete.
        hashes |= _save(config.out, f"{split}/{LABELS}", labels)
    manifest = describe(config, splits, photos) | {"arrays": hashes}
    (config.out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{config.out}: {len(photos)} modalities; {MANIFEST} lists sources and SHA-256 sums")


def make_part(parent: Path, data_dir: Path | None) -> None:
    """Makes a data set of 20,000 training digits in ``parent/polymnist``, unless it is there."""
    folder = parent / "polymnist"
    if not (folder / MANIFEST).exists():
        main(MakePolyMNISTConfig(out=folder, data_dir=data_dir, num_train=NUM_OF_PART))


def describe(
    config: MakePolyMNISTConfig, splits: Splits, photos: Mapping[str, Photo]
) -> dict[str, Any]:
    """Returns the recipe, the settings, and the SHA-256 of the values of each source."""
    digits = {split: _sha256(found.data["image"][:]) for split, found in splits._asdict().items()}
    backgrounds = {
        f"m{m}": {"source": name, "sha256": _sha256(photo), "shape": str(photo.shape)}
        for m, (name, photo) in enumerate(photos.items())
    }
    return {
        "recipe": RECIPES[config.layout],
        "layout": config.layout,
        "seed": config.seed,
        "num_train": config.num_train,
        "num_test": config.num_test,
        "mnist": digits,
        "backgrounds": backgrounds,
    }


def first_of_mnist(digits: MultimodalArrays, num: int | None) -> MultimodalArrays:
    """Returns the first ``num`` digits (all for None) in the order of the published PolyMNIST.

    The order is: the first digit of every class, then the second digit of every class, and so on.

    Raises:
      ValueError: if MNIST has fewer digits.
    """
    total = num_examples(digits)
    if num is not None and not 1 <= num <= total:
        raise ValueError(f"num_train or num_test is {num}: choose 1 to {total}, MNIST's digits")
    labels = np.asarray(digits.labels)[:num]
    return take(digits, np.lexsort((labels, _rank_in_class(labels))))


def make_modalities(
    digits: MultimodalArrays,
    photos: Sequence[Photo],
    seed: int,
    split: str,
    layout: Layout = "full",
) -> Iterator[tuple[str, UInt8[np.ndarray, "n 28 28 3"]]]:
    """Yields the name and the images of each modality; image ``i`` has the class of digit ``i``.

    The images of a modality do not depend on the number of modalities.
    """
    labels = np.asarray(digits.labels)
    places = _by_class(labels)
    for m, photo in enumerate(photos):
        rng = np.random.default_rng((seed, SPLITS.index(split), m))
        shuffled = rng.permutation(len(labels))
        rows = np.empty_like(places)
        rows[places] = shuffled[_by_class(labels[shuffled])]
        crops = crop(photo, len(rows), rng)
        shown = digits.data["image"][rows][..., 0]
        if layout == "quadrant":
            shown = into_quadrants(shown, rng.integers(4, size=len(rows)))
        yield f"m{m}", invert(crops, shown)


def crop(
    photo: Photo, num: int, rng: np.random.Generator, size: int = IMAGE_SHAPE[0]
) -> UInt8[np.ndarray, "n size size 3"]:
    """Returns ``num`` random crops of a photograph."""
    windows = np.lib.stride_tricks.sliding_window_view(photo, (size, size), axis=(0, 1))
    tops, lefts = (rng.integers(side, size=num) for side in windows.shape[:2])
    return np.ascontiguousarray(windows[tops, lefts].transpose(0, 2, 3, 1))


def into_quadrants(
    digits: UInt8[np.ndarray, "n 28 28"], quadrants: Int[np.ndarray, " n"]
) -> UInt8[np.ndarray, "n 28 28"]:
    """Returns digits of half the size in the quadrants with these numbers, row by row from 0."""
    num, (height, width) = len(digits), (side // 2 for side in IMAGE_SHAPE[:2])
    small = digits.reshape(num, height, 2, width, 2).mean((2, 4))
    placed = np.zeros((num, 2, height, 2, width), np.uint8)
    placed[np.arange(num), quadrants // 2, :, quadrants % 2] = small.round()
    return placed.reshape(digits.shape)


def invert(
    crops: UInt8[np.ndarray, "n 28 28 3"], digits: UInt8[np.ndarray, "n 28 28"]
) -> UInt8[np.ndarray, "n 28 28 3"]:
    """Returns the crops with inverted colours where the digit is."""
    return np.where(digits[..., None] > THRESHOLD, 255 - crops, crops)


def write_png(folder: Path, images: UInt8[np.ndarray, "n h w 3"], labels: np.ndarray) -> None:
    """Writes the images to ``<index>.<label>.png``, with an index within the class."""
    folder.mkdir(parents=True)
    names = [f"{i}.{c}.png" for i, c in zip(_rank_in_class(labels), labels, strict=True)]

    def write(name: str, image: np.ndarray) -> None:
        Image.fromarray(image).save(folder / name)

    with ThreadPoolExecutor() as pool:
        written = pool.map(write, names, images)
        description = "/".join(folder.parts[-2:])
        for _ in tqdm(written, desc=description, total=len(names), leave=False, mininterval=1):
            pass


def load_backgrounds(paths: tuple[Path, ...]) -> dict[str, Photo]:
    """Returns photographs by name, from files, folders of files, or scikit-image without paths.

    Raises:
      ValueError: if a photograph is unreadable or too small, or there are fewer than two.
      ImportError: if no path is given and scikit-image is missing.
    """
    if not paths:
        photos = _scikit_image()
    else:
        files = [file for path in paths for file in _images_in(path)]
        photos = {str(file): _read_photo(file) for file in files}
    if len(photos) < 2:
        raise ValueError(
            f"backgrounds is {list(photos)}: give two photographs or more, one per modality"
        )
    height, width, _ = IMAGE_SHAPE
    for name, photo in photos.items():
        if photo.shape[0] < height or photo.shape[1] < width:
            raise ValueError(
                f"{name} has {photo.shape[0]}x{photo.shape[1]} pixels: give a photograph of at "
                f"least {height}x{width}"
            )
    return photos


def _images_in(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)


def _read_photo(file: Path) -> Photo:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise ValueError(
            f"backgrounds has {file}, which is not a readable image: {error}"
        ) from error


def _scikit_image() -> dict[str, Photo]:
    try:
        from skimage import data  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            "backgrounds is (), and scikit-image with its photographs is missing: pip install "
            "scikit-image, or give --backgrounds FOLDER"
        ) from error
    return {f"skimage.data.{name}": np.asarray(getattr(data, name)()) for name in SCIKIT_IMAGE}


def _by_class(labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    return np.argsort(labels, kind="stable")


def _rank_in_class(labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Returns, for each example, the number of earlier examples of its class."""
    order = _by_class(labels)
    counts = np.unique(labels, return_counts=True)[1]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank


def _save(out: Path, name: str, values: np.ndarray) -> dict[str, str]:
    np.save(out / name, values)
    return {name: _sha256(values)}


def _sha256(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()


if __name__ == "__main__":
    run_command(main, MakePolyMNISTConfig, "experiments.make_polymnist")
