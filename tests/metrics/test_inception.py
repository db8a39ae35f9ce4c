"""InceptionV3 features: pytorch-fid's network where it is installed, a stand-in elsewhere."""

import contextlib
import sys
import types
import zlib

import numpy as np
import pytest

from mmvae_jax.metrics import load_inception
from mmvae_jax.metrics.inception import CHUNK

# Every 128th feature of `make_image()` under `make_array` weights, as PyTorch 2.13 computes them
# with torch.nn.functional's conv2d, batch_norm, avg_pool2d(count_include_pad=False), max_pool2d and
# interpolate(mode="bilinear", align_corners=False) in single precision.
EXPECTED = [
    *[5.004748344421387, 3.283522605895996, 4.370207786560059, 0.3474498391151428],
    *[0.0, 9.253612518310547, 3.367133378982544, 1.176275610923767],
    *[5.466071888804436e-05, 1.8880195617675781, 0.01821701042354107, 2.701282262802124],
    *[3.6439085006713867, 0.060780346393585205, 0.20171210169792175, 2.113337755203247],
]


def make_array(name, shape):
    """Weights under which activations neither vanish nor grow, a function of the name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("conv.weight"):
        gain = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        return rng.standard_normal(shape, np.float32) * gain
    is_positive = name.endswith((".weight", ".running_var"))
    low, width = (0.5, 1) if is_positive else (-0.1, 0.2)
    return (low + rng.random(shape, np.float32) * width).astype(np.float32)


def make_image():
    rows, columns = np.arange(24)[:, None, None], np.arange(20)[None, :, None]
    wave = np.sin(rows * 0.7 + columns * 0.4 + np.arange(3))
    return (0.5 + 0.5 * wave)[None].astype(np.float32)


def test_features_are_those_of_pytorch(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    inception = pytest.importorskip("pytorch_fid.inception")
    with monkeypatch.context() as patched:  # the published names and shapes, without a download
        patched.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patched.setattr(torch.nn.Module, "load_state_dict", lambda *_: None)
        shapes = {name: x.shape for name, x in inception.fid_inception_v3().state_dict().items()}
    weights = {name: torch.as_tensor(make_array(name, shape)) for name, shape in shapes.items()}
    torch.save(weights, tmp_path / "weights.pth")
    features = load_inception(tmp_path / "weights.pth")
    found = features(make_image())
    assert (found.shape, found.dtype) == ((1, 2048), np.float32)
    np.testing.assert_allclose(found[0, ::128], EXPECTED, rtol=1e-4, atol=1e-4)
    grey = make_image()[..., :1]
    np.testing.assert_array_equal(features(grey), features(np.repeat(grey, 3, axis=3)))
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"path is .*other\.pth"):
        load_inception(tmp_path / "other.pth")


class Network:
    """Stands in for InceptionV3: means of the channels, and one pixel, as features."""

    def __init__(self):
        assert sys.modules["pytorch_fid"].inception.load_state_dict_from_url("URL") == "weights"

    def eval(self):
        return self

    def __call__(self, x):
        assert len(x) <= CHUNK
        return [np.concatenate([x.mean((2, 3)), x[:, :, 1, 0]], axis=1)[..., None, None]]


@pytest.fixture
def stand_ins(monkeypatch):
    """PyTorch and pytorch-fid as far as they are used, on NumPy's arrays."""
    inception = types.SimpleNamespace(InceptionV3=Network, load_state_dict_from_url=None)
    torch = types.SimpleNamespace(
        from_numpy=lambda x: x,
        inference_mode=contextlib.nullcontext,
        load=lambda path, **_: path.read_text(),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "pytorch_fid", types.SimpleNamespace(inception=inception))


def test_images_go_in_channels_first_and_in_chunks(stand_ins, tmp_path):
    """Shows the layout and the order of what the network is given, not its features."""
    (tmp_path / "weights.pth").write_text("weights")
    features = load_inception(tmp_path / "weights.pth")
    images = np.random.default_rng(0).random((CHUNK + 3, 5, 4, 3), np.float32)
    expected = np.concatenate([images.mean((1, 2)), images[:, 1, 0]], axis=1)
    np.testing.assert_allclose(features(images), expected, rtol=1e-5)
    np.testing.assert_allclose(
        features(images[..., :1]), expected[:, [0, 0, 0, 3, 3, 3]], rtol=1e-5
    )
    with pytest.raises(ValueError, match="images has 2 channels"):
        features(images[..., :2])


def test_a_missing_file_and_a_missing_library_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"path is .*none\.pth"):
        load_inception(tmp_path / "none.pth")
    monkeypatch.setitem(sys.modules, "pytorch_fid", None)
    (tmp_path / "weights.pth").touch()
    with pytest.raises(ImportError, match=r"mmvae_jax\[fid\]"):
        load_inception(tmp_path / "weights.pth")
