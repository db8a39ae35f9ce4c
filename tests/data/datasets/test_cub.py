"""CUB from small folders of images and lines of captions."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.official_files import CUB_CAPTIONS as FILES
from helpers.official_files import write_cub
from PIL import Image

from mmvae_jax.data import (
    cub,
    cub_vocabulary,
    decode_captions,
    missing_at_random,
    missing_by_label,
    num_examples,
    take,
)
from mmvae_jax.data.datasets.cub import (
    CAPTIONS_PER_IMAGE,
    EOS,
    EXCLUDED,
    PAD,
    SPECIAL,
    build_vocabulary,
    encode_captions,
)

#: Images of each split, in the order that their captions are in.
IMAGES = {
    "train": [
        "002.Laysan_Albatross/a_0001.jpg",
        "002.Laysan_Albatross/a_0010.jpg",
        "200.Common_Yellowthroat/z_0002.jpg",
    ],
    "test": ["001.Black_footed_Albatross/b_0003.jpg", "004.Groove_billed_Ani/c_0001.jpg"],
}
SPECIES = {"train": [1, 1, 199], "test": [0, 3]}


def captions(split: str) -> list[str]:
    """Returns captions that repeat "very" as often as the index of their image."""
    return [
        f"this bird is {'very ' * image}blue. it is variant-{copy}."
        for image in range(len(IMAGES[split]))
        for copy in range(CAPTIONS_PER_IMAGE)
    ]


def colour(split: str, image: int) -> int:
    return 40 * (image + 1) + (100 if split == "test" else 0)


def picture(split: str, image: int) -> Image.Image:
    """Returns an image of one colour; the first image of a split is grey."""
    shade = colour(split, image)
    return Image.new("RGB", (90, 70), (shade,) * 3) if image else Image.new("L", (90, 70), shade)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("written") / "cub"
    images = {
        split: {name: picture(split, image) for image, name in enumerate(names)}
        for split, names in IMAGES.items()
    }
    write_cub(root, images, {split: captions(split) for split in IMAGES})
    return root


@pytest.fixture
def root(written, tmp_path) -> Path:
    """Parent folder of a copy that a test may change."""
    shutil.copytree(written, tmp_path / "data/cub")
    return tmp_path / "data"


def test_every_caption_is_paired_with_its_image_and_species(written):
    dataset = cub(written.parent)
    for split, names in IMAGES.items():
        found = getattr(dataset, split)
        assert num_examples(found) == CAPTIONS_PER_IMAGE * len(names)
        assert found.data["image"].shape[1:] == (64, 64, 3)
        assert found.data["image"].dtype == np.uint8
        assert len(found.data["image"].column) == len(names)  # Ten captions, one copy.
        image = np.repeat(np.arange(len(names)), CAPTIONS_PER_IMAGE)
        expected = np.array([colour(split, i) for i in range(len(names))])[image]
        shown = found.data["image"][:].astype(float).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(shown, expected, atol=1)  # JPEG
        very = dataset.vocabulary.index("very")
        np.testing.assert_array_equal((found.data["caption"] == very).sum(1), image)
        np.testing.assert_array_equal(found.labels, np.array(SPECIES[split])[image])


def test_captions_are_words_an_end_and_padding(written):
    dataset = cub(written.parent, caption_length=14)
    caption = dataset.test.data["caption"]
    assert caption.shape == (20, 14)
    # 'this bird is blue . it is variant-0 .': the variant is seen three times in training.
    first = caption[0]
    assert dataset.vocabulary[first[7]] == "<exc>"
    assert first[9] == EOS
    assert (first[10:] == PAD).all()
    assert EXCLUDED not in first[:7]
    assert decode_captions(caption[:1], dataset.vocabulary) == ["this bird is blue . it is <exc> ."]


def test_words_seen_more_than_three_times_are_known_in_the_order_of_their_first_use():
    text = ["owl wren", "wren owl wren", "owl owl <pad>", "wren jay jay jay"]
    assert build_vocabulary(text) == (*SPECIAL, "owl", "wren")
    assert build_vocabulary(text, min_count=2) == (*SPECIAL, "owl", "wren", "jay")


def test_the_vocabulary_is_made_from_training_only(root):
    known = cub(root).vocabulary
    test = root / "cub" / FILES["test"]
    test.write_text(test.read_text().replace("blue", "unheard-of"))
    assert cub(root).vocabulary == known


def test_the_vocabulary_can_be_had_without_the_images(root):
    known = cub(root).vocabulary
    shutil.rmtree(root / "cub/train")
    assert cub_vocabulary(root) == known
    with pytest.raises(FileNotFoundError, match="lacks CUB"):
        cub_vocabulary(root / "cub")


@pytest.mark.parametrize("num_words", [0, 1, 30, 31, 32, 50])
def test_long_captions_are_cut_to_leave_room_for_the_end(num_words):
    (codes,) = encode_captions(["owl " * num_words], (*SPECIAL, "owl"))
    kept = min(num_words, 31)
    assert codes.tolist() == [3] * kept + [EOS] + [PAD] * (31 - kept)


def test_a_caption_without_an_end_is_decoded_whole():
    words = (*SPECIAL, "owl", "wren")
    assert decode_captions(np.array([[3, PAD, 4], [EOS, 3, 3]]), words) == ["owl wren", ""]


def test_parts_can_be_missing(written):
    train = cub(written.parent).train
    half = missing_at_random(train, 0.5, seed=0)
    assert np.stack([*half.mask.values()]).any(0).all()
    batch = take(missing_by_label(train, {"image": [199]}), np.array([0, 29]))
    assert batch.mask["image"].tolist() == [True, False]
    assert batch.data["image"].shape == (2, 64, 64, 3)


def test_image_size(written):
    assert cub(written.parent, image_size=16).test.data["image"].shape == (20, 16, 16, 3)


def drop_line(root: Path) -> None:
    file = root / FILES["train"]
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")


def drop_image(root: Path) -> None:
    (root / "test" / IMAGES["test"][0]).unlink()


def share_image(root: Path) -> None:
    moved = root / "train" / IMAGES["train"][0]
    shutil.copy(moved, root / "test" / IMAGES["test"][0])
    (root / "test" / IMAGES["test"][0]).rename(root / "test/004.Groove_billed_Ani/a_0001.jpg")


def damage_image(root: Path) -> None:
    file = root / "test" / IMAGES["test"][1]
    file.write_bytes(file.read_bytes()[:200])


def rename_species(root: Path) -> None:
    (root / "train/002.Laysan_Albatross").rename(root / "train/Laysan_Albatross")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_line, r"trainvalclasses\.txt has 29 lines for 3 images"),
        (drop_image, r"testclasses\.txt has 20 lines for 1 images"),
        (share_image, r"1 images in both train and test"),
        (damage_image, r"c_0001\.jpg is not a readable image"),
        (rename_species, "Laysan_Albatross names no species"),
    ],
)
def test_files_that_do_not_fit_are_refused(root, change, message):
    change(root / "cub")
    with pytest.raises(ValueError, match=message):
        cub(root)


def test_missing_files_are_named(root):
    (root / "cub" / FILES["test"]).unlink()
    with pytest.raises(FileNotFoundError, match=r"text_testclasses\.txt"):
        cub(root)
    shutil.rmtree(root / "cub/train")
    (root / "cub" / FILES["test"]).touch()
    with pytest.raises(FileNotFoundError, match=r"train has no <species>/\*\.jpg"):
        cub(root)
    shutil.rmtree(root / "cub")
    with pytest.raises(FileNotFoundError, match="lacks CUB"):
        cub(root)


@pytest.mark.parametrize(
    ("field", "options"),
    [("image_size is 0", {"image_size": 0}), ("caption_length is 1", {"caption_length": 1})],
)
def test_sizes_that_are_too_small_are_refused(written, field, options):
    with pytest.raises(ValueError, match=field):
        cub(written.parent, **options)
