"""The shared and private parts of latents, and the clusters of the shared part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mmvae_jax as mm

DIMS = {"shared": (4,), "plain": (3,), "image": (2, 2)}  # a modality may be called "shared"
PRIVATE = {"shared": 2, "plain": 0, "image": 3}


@pytest.fixture(scope="module")
def model():
    config = mm.MMVAEConfig(
        input_dims=DIMS,
        latent_dim=2,
        K=2,
        modalities_specific_dim=PRIVATE,
        number_of_clusters=3,
        prior_and_posterior_dist="normal",
    )
    return mm.MMVAE(config, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def batch():
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = zip(DIMS, keys, strict=True)
    return mm.Batch({m: jax.random.normal(key, (5, *DIMS[m])) for m, key in shapes})


def test_parts(model):
    z = jnp.arange(14.0).reshape(2, 7)
    shared, private = mm.split_latents(model, z)
    assert shared[0].tolist() == [0, 1]
    assert {m: w[0].tolist() for m, w in private.items()} == {
        "shared": [2, 3],
        "plain": [],
        "image": [4, 5, 6],
    }
    np.testing.assert_array_equal(mm.join_latents(model, shared, private), z)


def test_decoders_see_their_own_part(model, batch):
    z = mm.encode(model, batch, jax.random.key(1))
    shared, private = mm.split_latents(model, z)
    changed = mm.join_latents(model, shared, {**private, "image": private["image"] + 1})
    before, after = (mm.decode(model, latents) for latents in (z, changed))
    for name in ("shared", "plain"):
        np.testing.assert_array_equal(before[name], after[name])
    assert not np.allclose(before["image"], after["image"])


def test_clusters_are_those_of_bayes_rule(model, batch):
    """With clusters far apart and narrow posteriors, the cluster is that of the location."""
    clustered = nnx.clone(model)
    clustered.clusters["loc"].set_value(jnp.array([[-50.0, 0], [0, 0], [50, 0]]))
    loc, _ = mm.split_latents(model, mm.encode(model, batch, None, return_mean=True))
    shares = mm.predict_clusters(clustered, batch, jax.random.key(2), cond_mod="plain")
    assert shares.shape == (5, 3)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    assert (shares.argmax(1) == 1).all()
    # q(c|u) of one draw, by hand.
    scale = 1.0  # exp(0 / 2)
    z = mm.encode(model, batch, jax.random.key(3), N=1)
    u = mm.split_latents(model, z).shared[:, 0]
    log_p = -0.5 * jnp.square((u[:, None] - model.clusters["loc"][...][None]) / scale).sum(-1)
    expected = jax.nn.softmax(log_p, axis=1)
    found = mm.predict_clusters(model, batch, jax.random.key(3), N=1)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    assert loc.shape == (5, 1, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: mm.split_latents(m, jnp.zeros((2, 2))), r"z has shape \(2, 2\), expected"),
        (lambda m: mm.join_latents(m, jnp.zeros((2, 2)), {}), "private lacks"),
        (
            lambda m: mm.join_latents(m, jnp.zeros((2, 2)), {**empty(2), "image": jnp.zeros(3)}),
            r"private\['image'\] has shape \(3,\), expected \(2, 3\)",
        ),
        (
            lambda m: mm.join_latents(m, jnp.zeros(2), {"imgae": jnp.zeros(3)}),
            "did you mean 'image'",
        ),
    ],
)
def test_errors(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def empty(n):
    return {m: jnp.zeros((n, size)) for m, size in PRIVATE.items()}


def test_one_cluster_is_refused(model, batch):
    plain = mm.MMVAE(model.config.replace(number_of_clusters=1), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="number_of_clusters is 1"):
        mm.predict_clusters(plain, batch, jax.random.key(0))
