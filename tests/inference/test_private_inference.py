"""Inference with private latents and clusters: own posteriors, generated ones, files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.monte_carlo import NUM_SIGMA
from helpers.small_model import DIMS, make_data, make_model

import mmvae_jax as mm

#: The scale of a private latent of one axis is constant under laplace_with_softmax.
pytestmark = pytest.mark.filterwarnings("ignore:modalities_specific_dim is 1")

SIZES = {"a": 2, "b": 0, "c": 1}
OF_A, OF_C = slice(4, 6), slice(6, 7)
OPTIONS = ["joint_prior", "single_prior"]


def private_model(option="joint_prior", **fields):
    model = make_model(
        modalities_specific_dim=SIZES,
        number_of_clusters=3,
        reconstruction_option=option,
        prior_and_posterior_dist="normal",
        **fields,
    )
    model.prior_log_var.set_value(jnp.array([-1.0, 1.0]))
    model.private_log_var["a"].set_value(jnp.array([2.0, 0.5]))
    model.private_log_var["c"].set_value(jnp.array([-2.0]))
    return model


def generated_scales(option):
    """Scales of w_a and w_c of modalities that are generated."""
    if option == "joint_prior":  # the first axes of one p(w)
        return np.exp([-0.5, 0.5]), np.exp([-0.5])
    return np.exp([1.0, 0.25]), np.exp([-1.0])


def assert_moments(draws, loc, scale):
    """Normal draws ``[n d]``: mean and variance within standard errors."""
    num = len(draws)
    assert np.all(np.abs(draws.mean(0) - loc) < NUM_SIGMA * scale / np.sqrt(num))
    error = np.sqrt(2 / num) * scale**2
    assert np.all(np.abs(draws.var(0) - scale**2) < NUM_SIGMA * error)


@pytest.mark.parametrize("option", OPTIONS)
def test_encode(option):
    """Given c, every draw has w_c ~ q_c(w|x_c); w_a is generated."""
    model, data = private_model(option), make_data()
    rows = jax.tree.map(lambda x: x[:1], data)
    z = mm.encode(model, mm.Batch(rows), jax.random.key(0), cond_mod=("b", "c"), N=20_000)[0]
    loc, scale = model.experts(rows)
    of_a, _ = generated_scales(option)
    assert_moments(z[:, OF_C], loc[2, 0, OF_C], scale[2, 0, OF_C])
    assert_moments(z[:, OF_A], 0, of_a)
    mean = (loc[1, 0, :4] + loc[2, 0, :4]) / 2
    spread = (scale[1:, 0, :4] ** 2).mean(0) + jnp.var(loc[1:, 0, :4], axis=0)
    assert np.all(np.abs(z[:, :4].mean(0) - mean) < NUM_SIGMA * np.sqrt(spread / len(z)))
    averaged = mm.encode(model, mm.Batch(rows), None, cond_mod=("b", "c"), return_mean=True)[0, 0]
    expected = jnp.concatenate([mean, jnp.zeros(2), loc[2, 0, OF_C]])
    np.testing.assert_allclose(averaged, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("option", OPTIONS)
def test_generate_from_prior(option):
    model = private_model(option)
    z = mm.generate_from_prior(model, jax.random.key(1), 20_000)
    of_a, of_c = generated_scales(option)
    assert_moments(z[:, OF_A], 0, of_a)
    assert_moments(z[:, OF_C], 0, of_c)
    loc = model.clusters["loc"][...].mean(0)  # of equal weights
    error = np.asarray(z[:, :4]).std(0) / np.sqrt(len(z))
    assert np.all(np.abs(z[:, :4].mean(0) - loc) < NUM_SIGMA * error)


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_reconstruct(option):
    """The own w from the posterior, others generated: linear decoders show their moments."""
    model, rows = private_model(option), jax.tree.map(lambda x: x[:1], make_data())
    drawn = mm.reconstruct(model, mm.Batch(rows), jax.random.key(2), N=20_000)
    loc, scale = model.experts(rows)
    of_a, of_c = generated_scales(option)
    generated = {"a": of_a, "b": np.zeros(0), "c": of_c}
    parts = {"a": OF_A, "b": slice(4, 4), "c": OF_C}
    for m, given in enumerate(DIMS):
        for name in DIMS:
            own = name == given
            w_loc = loc[m, 0, parts[name]] if own else np.zeros(SIZES[name])
            w_scale = scale[m, 0, parts[name]] if own else generated[name]
            kernel = np.asarray(model.decoders[name].out.kernel[...])
            mean = np.concatenate([loc[m, 0, :4], w_loc]) @ kernel + model.decoders[name].out.bias
            variance = np.concatenate([scale[m, 0, :4], w_scale]) ** 2 @ kernel**2
            x = np.asarray(drawn[given][name][0]).reshape(20_000, -1)
            assert_moments(x, mean, np.sqrt(variance))


def test_predict_decodes_what_encode_draws():
    model, batch = private_model(), mm.Batch(make_data())
    options = {"cond_mod": ("a", "c"), "N": 2}
    predicted = mm.predict(model, batch, jax.random.key(0), gen_mod="b", **options)
    z = mm.encode(model, batch, jax.random.split(jax.random.key(0))[0], **options)
    np.testing.assert_allclose(predicted["b"], mm.decode(model, z)["b"], rtol=1e-5, atol=1e-6)


def test_decoders_get_their_own_private_latent():
    """w_a changes nothing but a; w of no size is no input."""
    model, z = private_model(), jnp.ones((3, 7))
    expected, other = mm.decode(model, z), mm.decode(model, z.at[:, OF_A].add(1))
    for name in DIMS:
        assert np.array_equal(expected[name], other[name]) == (name != "a")
    with pytest.raises(ValueError, match=r"z has shape \(3, 4\), expected \(..., 7\)"):
        mm.decode(model, z[:, :4])


@pytest.mark.slow
def test_saved_folder(tmp_path):
    """Config, clusters and private scales come back; the same draws."""
    model = private_model("single_prior", learn_prior=True)
    mm.save_pretrained(model, tmp_path / "model")
    networks = dict(model.encoders), dict(make_model(modalities_specific_dim=SIZES).decoders)
    loaded = mm.from_pretrained(tmp_path / "model", encoders=networks[0], decoders=networks[1])
    assert loaded.config == model.config
    expected, drawn = (mm.generate(m, jax.random.key(0), 5) for m in (model, loaded))
    for name, x in expected.items():
        np.testing.assert_array_equal(drawn[name], x)
