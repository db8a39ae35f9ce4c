"""SVHN from small MATLAB files."""

import chex
import numpy as np
import pytest
from helpers.official_files import svhn_labels, write_svhn
from scipy.io import savemat

from mmvae_jax.data import svhn
from mmvae_jax.data.datasets.svhn import read_mat

X = np.zeros((32, 32, 3, 4), np.uint8)
Y = np.array([[1], [10], [9], [2]], np.uint8)


@pytest.mark.parametrize("place", ["svhn", "SVHN", "."])
def test_images_and_labels_are_those_of_the_files(tmp_path, place):
    images = write_svhn(tmp_path / "data" / place)
    dataset = svhn(tmp_path / "data")
    for split, size in (("train", 60), ("test", 30)):
        found = getattr(dataset, split)
        chex.assert_trees_all_equal(found.data["image"], images[split])
        assert found.data["image"].flags.c_contiguous
        np.testing.assert_array_equal(found.labels, svhn_labels(size))
        assert (found.labels == 0).any()


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("lacks X or y", {"X": X}),
        ("lacks X or y", {"y": Y}),
        (r"is uint8\[4, 32, 32, 3\]", {"X": X.transpose(3, 0, 1, 2), "y": Y}),
        ("is float64", {"X": X.astype(float), "y": Y}),
        ("for 3 labels", {"X": X, "y": Y[:3]}),
        ("is 0 to 10", {"X": X, "y": np.array([[0], [10], [9], [2]])}),
    ],
)
def test_other_content_is_refused(tmp_path, message, content):
    savemat(tmp_path / "train_32x32.mat", content)
    with pytest.raises(ValueError, match=f"train_32x32.mat.* {message}"):
        read_mat(tmp_path / "train_32x32.mat")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused_by_name(tmp_path, share):
    write_svhn(tmp_path / "svhn")
    file = tmp_path / "svhn/train_32x32.mat"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"train_32x32\.mat cannot be read"):
        svhn(tmp_path)


def test_text_is_refused_by_name(tmp_path):
    (tmp_path / "test_32x32.mat").write_text("<html>404 Not Found</html>" * 20)
    with pytest.raises(ValueError, match=r"test_32x32\.mat cannot be read"):
        read_mat(tmp_path / "test_32x32.mat")
