"""InceptionV3 against PyTorch's functions, and its file against the published names and shapes."""

import sys
import zlib

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from mmvae_jax.metrics.inception import EPSILON, checkpoint_shapes, load_inception
from mmvae_jax.metrics.inception_layers import (
    LAYERS,
    Conv,
    _max_around,
    _max_pool,
    _mean_around,
    apply_layers,
    convolutions,
)

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


def test_names_and_shapes_are_the_published_ones():
    """Torchvision's Inception3 without auxiliary classifier has 23,834,568 parameters (1000
    classes), of which its last layer has 2048 * 1000 + 1000; the rest is the same network."""
    shapes = checkpoint_shapes()
    num_trained = sum(np.prod(s) for name, s in shapes.items() if "running" not in name)
    assert num_trained == 23_834_568 - (2048 * 1000 + 1000)
    assert len(convolutions()) == 94
    assert len(shapes) == 5 * 94
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Mixed_5b.branch_pool.conv.weight"] == (32, 192, 1, 1)
    assert shapes["Mixed_6c.branch7x7dbl_2.conv.weight"] == (160, 160, 7, 1)
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert shapes["Mixed_7c.branch3x3_1.bn.running_var"] == (384,)


@pytest.mark.slow
def test_features_are_pytorch_s(tmp_path):
    weights = {name: make_array(name, shape) for name, shape in checkpoint_shapes().items()}
    np.savez(tmp_path / "weights.npz", **weights)
    features = np.asarray(load_inception(tmp_path / "weights.npz")(make_image()))
    assert features.shape == (1, 2048)
    np.testing.assert_allclose(features[0, ::128], EXPECTED, rtol=1e-4, atol=1e-4)


def test_a_convolution_is_normalised_as_told():
    """relu(gain (W x - mean) / sqrt(var + eps) + shift), by SciPy's correlation."""
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((1, 7, 8, 2)), rng.standard_normal((3, 2, 1, 7))
    gain, shift, mean = rng.standard_normal((3, 3))
    variance = rng.random(3)
    scale = gain / np.sqrt(variance + EPSILON)
    params = {
        "c": (jnp.asarray(kernel.transpose(2, 3, 1, 0) * scale), jnp.asarray(shift - mean * scale))
    }
    found = apply_layers((Conv("c", 3, (1, 7)),), params, jnp.asarray(x))
    for out in range(3):
        correlated = sum(
            scipy.ndimage.correlate(x[0, :, :, i], kernel[out, i], mode="constant") for i in (0, 1)
        )
        expected = gain[out] * (correlated - mean[out]) / np.sqrt(variance[out] + EPSILON)
        expected = np.maximum(expected + shift[out], 0)
        np.testing.assert_allclose(found[0, :, :, out], expected, rtol=1e-4, atol=1e-4)


def test_pools_see_the_neighbours_that_there_are():
    x = np.random.default_rng(0).standard_normal((1, 5, 7, 2)).astype(np.float32) - 5
    mean, highest = (
        np.asarray(_mean_around(jnp.asarray(x))),
        np.asarray(_max_around(jnp.asarray(x))),
    )
    for i in range(5):
        for j in range(7):
            around = x[0, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            np.testing.assert_allclose(mean[0, i, j], around.mean((0, 1)), rtol=1e-5)
            np.testing.assert_array_equal(highest[0, i, j], around.max((0, 1)))
    halved = np.asarray(_max_pool(jnp.asarray(x)))
    assert halved.shape == (1, 2, 3, 2)
    np.testing.assert_array_equal(halved[0, 1, 2], x[0, 2:5, 4:7].max((0, 1)))


def test_only_the_last_block_takes_the_maximum():
    pools = [
        branch[0] for block in LAYERS if hasattr(block, "branches") for branch in block.branches
    ]
    assert pools.count(_mean_around) == 3 + 4 + 1
    assert pools.count(_max_around) == 1
    assert LAYERS[-1].branches[-1][0] is _max_around


def test_files_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    file = tmp_path / "weights.npz"
    np.savez(file, **{"Conv2d_1a_3x3.conv.weight": np.zeros((32, 3, 5, 5), np.float32)})
    wrong = r"470 arrays differ, such as Conv2d_1a_3x3.conv.weight: \(32, 3, 5, 5\), expected"
    with pytest.raises(ValueError, match=wrong):
        load_inception(file)
    with pytest.raises(FileNotFoundError):
        load_inception(tmp_path / "none.npz")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install torch"):
        load_inception(tmp_path / "weights.pth")
