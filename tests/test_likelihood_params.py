"""Parameters of likelihoods that are trained: values, gradients, and every place that uses them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.linear_gaussian import linear_gaussian
from helpers.saved_models import assert_same
from helpers.small_model import make_data, make_model

import mmvae_jax as mm
from mmvae_jax.batch import observe
from mmvae_jax.generative import likelihood_of_examples

LEARNED = {"a": {"scale": mm.Learned(0.75)}}
PER_FEATURE = {"a": {"scale": mm.Learned(0.75, floor=0.05, per_feature=True)}}
DENSE = mm.Backward("dense")

value_and_grad = jax.jit(mm.value_and_grad, static_argnames="backward")


@pytest.fixture
def batch():
    return mm.Batch(make_data())


def key(seed=1):
    return jax.random.key(seed)


def moved(model, raw):
    """The model with another raw scale of modality a."""
    model = nnx.clone(model)
    model.raw_likelihood_params["a"]["scale"].set_value(jnp.asarray(raw, float))
    return model


def test_a_model_without_learned_parameters_has_no_others():
    params = nnx.to_pure_dict(nnx.state(make_model(), nnx.Param))
    assert set(params) == {"encoders", "decoders", "prior_log_var"}
    assert make_model().likelihood_params("a") == {"scale": 1.0}
    with pytest.raises(ValueError, match=r"name has the unknown modalities \['x'\]"):
        make_model().likelihood_params("x")


@pytest.mark.parametrize(("dim", "shape"), [((6,), (6,)), ((4, 5, 3), (3,))])
def test_values(dim, shape):
    """It starts at the initial value, grows by factors, and stays above its floor."""
    for per_feature in (False, True):
        learned = mm.Learned(0.75, floor=0.25, per_feature=per_feature)
        raw = learned.raw(dim)
        assert raw.shape == (shape if per_feature else ())
        np.testing.assert_allclose(learned.value(raw), 0.75, rtol=1e-6)
        np.testing.assert_allclose(learned.value(raw + np.log(3)), 1.75, rtol=1e-6)
        np.testing.assert_allclose(learned.value(raw - 100), 0.25, rtol=1e-6)


def test_config_holds_them():
    config = make_model(decoder_dist_params=PER_FEATURE).config
    assert mm.MMVAEConfig.from_json(config.to_json()) == config
    assert hash(config) == hash(config.replace())
    assert config.to_dict()["decoder_dist_params"]["a"]["scale"] == {
        "learned": 0.75,
        "floor": 0.05,
        "per_feature": True,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial": 0}, "Learned.initial is 0: give a finite number above 0"),
        ({"initial": 1.0, "floor": -1.0}, "Learned.floor is -1.0: give a finite number above 0"),
        ({"initial": 0.1, "floor": 0.2}, "Learned.floor is 0.2, and initial 0.1"),
        ({"initial": 1.0, "per_feature": 3}, "Learned.per_feature is 3: give True or False"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        mm.Learned(**arguments)


def test_likelihoods_without_the_parameter_refuse_it():
    with pytest.raises(ValueError, match="sets 'scale', which the bernoulli likelihood does not"):
        make_model(decoder_dist_params={"b": {"scale": mm.Learned(1.0)}})


@pytest.mark.slow
def test_it_is_the_model_of_its_value(batch):
    """The loss and the other gradients are those of a config that sets the current value."""
    learned = moved(make_model(decoder_dist_params=LEARNED), np.log(2))
    fixed = make_model(decoder_dist_params={"a": {"scale": float(learned_scale(learned))}})
    metrics, grads = value_and_grad(learned, batch, key(), backward=DENSE)
    expected_metrics, expected = value_and_grad(fixed, batch, key(), backward=DENSE)
    np.testing.assert_allclose(metrics["loss"], expected_metrics["loss"], rtol=1e-6)
    grads = nnx.to_pure_dict(grads)
    raw = grads.pop("raw_likelihood_params")
    chex.assert_trees_all_close(grads, nnx.to_pure_dict(expected), rtol=1e-4, atol=1e-5)
    assert raw["a"]["scale"] != 0


def learned_scale(model):
    return model.likelihood_params("a")["scale"]


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["normal", "laplace"])
@pytest.mark.parametrize("loss", ["iwae", "mixture_dreg_looser"])
def test_gradient_is_the_derivative_of_the_loss(x64, batch, likelihood, loss):
    """Finite differences along two directions; no estimator changes the gradient of theta."""
    fields = {"decoders_dist": {"a": likelihood}, "decoder_dist_params": PER_FEATURE}
    model = make_model(loss=loss, **fields)
    raw = jnp.linspace(-0.5, 0.5, 6, dtype=float)

    @jax.jit
    def of_raw(raw):
        return mm.loss(moved(model, raw), batch, key(), backward=DENSE)

    gradient = jax.jit(jax.grad(of_raw))(raw)
    for direction in (jnp.ones(6), jnp.arange(6) - 2.0):
        step = 1e-5 * direction
        difference = (of_raw(raw + step) - of_raw(raw - step)) / 2e-5
        np.testing.assert_allclose(gradient @ direction, difference, rtol=1e-6)


@pytest.mark.slow
def test_gradient_in_closed_form(x64, batch):
    """``d log N(x; loc, s) / ds = ((x - loc)^2 / s^2 - 1) / s``, and ``ds / draw = s - floor``."""
    model = make_model(loss="elbo", K=1, decoder_dist_params=PER_FEATURE)
    noise = {m: np.zeros((1, 8, 4)) for m in model.config.modalities}  # z is the location
    _, grads = value_and_grad(model, batch, noise=noise, backward=DENSE)
    decoded = mm.reconstruct(model, batch, None, return_mean=True)
    s, squares = learned_scale(model), []
    for source in model.config.modalities:
        squares.append(np.square(batch.data["a"] - decoded[source]["a"][:, 0]))
    expected = (1 - np.mean(squares, (0, 1)) / s**2) / s * (s - 0.05)
    found = grads["raw_likelihood_params"]["a"]["scale"][...]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
def test_training_finds_the_scale_of_the_noise():
    """The likelihood of data drawn from a known model is largest at its standard deviation."""
    case = linear_gaussian(2)
    known = case.model(K=10, loss="iwae")
    learned = {name: {"scale": mm.Learned(3.0)} for name in case.names}
    config = known.config.replace(decoder_dist_params=learned)
    model = mm.MMVAE(config, known.encoders, known.decoders, rngs=nnx.Rngs(0))
    data = {name: jnp.asarray(x, jnp.float32) for name, x in case.sample(1000).items()}
    labels = {"encoders": False, "decoders": False, "prior_log_var": False}
    labels["raw_likelihood_params"] = True
    tx = optax.partition({True: optax.adam(0.05), False: optax.set_to_zero()}, labels)
    state = mm.create_train_state(model, tx, key=key())
    state, _ = jax.jit(
        lambda state: jax.lax.scan(
            lambda state, _: (mm.train_step(state, mm.Batch(data))[0], None), state, length=100
        )
    )(state)
    for name in case.names:
        found = state.model().likelihood_params(name)["scale"]
        np.testing.assert_allclose(found, case.sigma[name], rtol=0.03)


class Zeros(nnx.Module):
    def __call__(self, z):
        return jnp.zeros((len(z), 6))


@pytest.mark.slow
def test_constant_data_stop_at_the_floor(batch):
    """A decoder that is exact drives the scale down, and the loss stays finite."""
    learned = {"a": {"scale": mm.Learned(0.5, floor=0.1)}}
    config = mm.MMVAEConfig(input_dims={"a": (6,)}, latent_dim=2, decoder_dist_params=learned)
    model = mm.MMVAE(config, decoders={"a": Zeros()}, rngs=nnx.Rngs(0))
    state = mm.create_train_state(model, optax.sgd(1.0), key=key())
    for _ in range(3):
        state, metrics = mm.train_step(state, mm.Batch({"a": jnp.zeros((8, 6))}))
    assert 0.1 <= learned_scale(state.model()) < 0.11
    assert np.isfinite(metrics["loss"])


@pytest.mark.slow
def test_likelihoods_and_draws_use_the_current_value(batch):
    """Estimates of the likelihood, and data that are drawn, are those of the fixed value."""
    model = moved(make_model(decoder_dist_params=LEARNED), -1.0)
    scale = float(learned_scale(model))
    fixed = make_model(decoder_dist_params={"a": {"scale": scale}})
    for compute in (mm.compute_joint_nll, mm.compute_joint_nll_paper):
        found, expected = (compute(m, batch, key(), K=20) for m in (model, fixed))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    observed = observe(model.config, batch)
    found, expected = (
        likelihood_of_examples(m, observed)(jnp.arange(8), jnp.ones((2, 8, 4)))
        for m in (model, fixed)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    drawn = mm.decode(model, jnp.zeros((20_000, 4)), key=key(), sample=True, modalities="a")["a"]
    np.testing.assert_allclose(drawn.std(0), scale, rtol=0.03)


def test_draws_of_every_feature():
    model = moved(make_model(decoder_dist_params=PER_FEATURE), jnp.linspace(-2, 1, 6))
    drawn = mm.decode(model, jnp.zeros((20_000, 4)), key=key(), sample=True, modalities="a")["a"]
    np.testing.assert_allclose(drawn.std(0), learned_scale(model), rtol=0.03)


@pytest.mark.slow
def test_overrides_come_first(batch):
    """A number in an override replaces the trained value, which then has no gradient."""
    model = moved(make_model(decoder_dist_params=PER_FEATURE), jnp.linspace(-2, 1, 6))
    fixed = make_model(decoder_dist_params={"a": {"scale": 0.4}})
    overrides = mm.Overrides(decoder_dist_params={"a": {"scale": 0.4}})
    metrics, grads = value_and_grad(model, batch, key(), overrides=overrides, backward=DENSE)
    assert not grads["raw_likelihood_params"]["a"]["scale"][...].any()
    expected, _ = value_and_grad(fixed, batch, key(), backward=DENSE)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5)


@pytest.mark.slow
def test_custom_likelihoods_have_them(batch):
    def log_prob(decoded, x, *, rate):
        return (jnp.log(rate) - rate * jnp.abs(x - decoded)).sum()

    fields = {"decoders_dist": {"a": log_prob}}
    model = make_model(**fields, decoder_dist_params={"a": {"rate": mm.Learned(2.0)}})
    laplace = make_model(decoders_dist={"a": "laplace"}, decoder_dist_params={"a": {"scale": 0.5}})
    metrics, grads = value_and_grad(model, batch, key(), backward=DENSE)
    expected, _ = value_and_grad(laplace, batch, key(), backward=DENSE)
    # The density of a Laplace has the factor rate / 2.
    np.testing.assert_allclose(expected["loss"] - metrics["loss"], 6 * np.log(2), rtol=1e-4)
    assert grads["raw_likelihood_params"]["a"]["rate"][...] != 0


@pytest.mark.slow
@pytest.mark.usefixtures("four_devices")
def test_every_device_trains_them(batch):
    model = make_model(decoder_dist_params=PER_FEATURE)
    mesh = mm.make_mesh(2, 1, devices=jax.devices()[:2])
    tx = optax.sgd(1e-2)
    on_mesh = mm.create_train_state(model, tx, key=key(), mesh=mesh)
    on_mesh, _ = mm.train_step(on_mesh, mm.shard_batch(batch, mesh))
    state, _ = mm.train_step(mm.create_train_state(model, tx, key=key()), batch)
    scales = [learned_scale(s.model()) for s in (on_mesh, state)]
    np.testing.assert_allclose(*scales, rtol=1e-5)
    assert (np.abs(scales[0] - 0.75) > 1e-4).any()


@pytest.mark.slow
def test_they_are_saved(batch, tmp_path):
    """In checkpoints, which resume exactly, in pretrained folders and on cards."""
    config = mm.MMVAEConfig(
        input_dims={"a": (6,), "b": (4, 4, 1)}, latent_dim=2, decoder_dist_params=PER_FEATURE
    )
    data = {name: batch.data[name] for name in config.modalities}
    model = mm.MMVAE(config, rngs=nnx.Rngs(0))
    tx = optax.adam(1e-2)

    def train(num_steps, resume=False):
        checkpointing = mm.Checkpointing(directory=tmp_path / "run", resume=resume)
        return mm.fit(
            mm.create_train_state(model, tx, key=key()),
            mm.MultimodalArrays({m: np.asarray(x) for m, x in data.items()}),
            num_steps=num_steps,
            batch_size=4,
            progress=False,
            checkpointing=checkpointing,
        ).state.model()

    trained = train(2)
    loaded, found = mm.load(tmp_path / "run")
    assert found == config
    assert_same(loaded, trained)
    assert (learned_scale(trained) != 0.75).all()
    resumed = train(3, resume=True)
    assert (learned_scale(resumed) != learned_scale(trained)).all()
    folder = mm.save_pretrained(trained, tmp_path / "model")
    assert_same(mm.from_pretrained(folder), trained)
    low, high = learned_scale(trained).min(), learned_scale(trained).max()
    assert f"scale {low:.6g} to {high:.6g} (trained)" in (folder / "README.md").read_text()
