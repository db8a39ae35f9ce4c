"""An MMVAE+ of one shared and one private axis per modality, whose gradient quadrature knows.

Encoders are constants, so that the parameters of u and of w are apart in the gradient.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.scipy.stats import norm

import mmvae_jax as mm

DIMS = {"a": (2,), "b": (1,)}
LOC = {"a": (0.6, 0.3), "b": (-0.4, -0.5)}
LOG_VAR = {"a": (-1.5, -0.4), "b": (0.1, -1.0)}  # experts of unequal widths
DATA = {"a": (1.0, -0.3), "b": (0.8,)}
FACTORS = {"a": 0.6, "b": 0.5}
#: The sets of observed modalities, each for a third of a batch.
PATTERNS = (("a", "b"), ("a",), ("b",))


class Constant(nnx.Module):
    """Location and raw scale of ``[u, w]`` for every x."""

    def __init__(self, name):
        self.loc = nnx.Param(jnp.asarray(LOC[name], float))
        self.log_var = nnx.Param(jnp.asarray(LOG_VAR[name], float))

    def __call__(self, x):
        shape = (len(x), 2)
        return tuple(jnp.broadcast_to(a[...][None], shape) for a in (self.loc, self.log_var))


class Bent(nnx.Module):
    """``sin(z A) + z B``."""

    def __init__(self, dim, seed):
        draws = 0.6 * np.random.default_rng(seed).normal(size=(2, 2, *dim))
        self.into, self.out = (nnx.Param(jnp.asarray(draw)) for draw in draws)

    def __call__(self, z):
        return jnp.sin(z @ self.into[...]) + z @ self.out[...]


def toy_model(loss, num_clusters=1, K=2, **fields):
    """The model, with parameters away from their initial values."""
    config = mm.MMVAEConfig(
        input_dims=DIMS,
        latent_dim=1,
        modalities_specific_dim=1,
        number_of_clusters=num_clusters,
        learn_prior=True,
        prior_and_posterior_dist="normal",
        uses_likelihood_rescaling=True,
        rescale_factors=FACTORS,
        beta=0.8,
        K=K,
        loss=loss,
        **fields,
    )
    encoders = {name: Constant(name) for name in DIMS}
    decoders = {name: Bent(dim, seed) for seed, (name, dim) in enumerate(DIMS.items())}
    model = mm.MMVAE(config, encoders, decoders, rngs=nnx.Rngs(0))
    is_mixture = num_clusters > 1
    model.prior_log_var.set_value(jnp.asarray([0.3] if is_mixture else [-0.2, 0.3], float))
    for name, raw in {"a": [0.5], "b": [-0.6]}.items():
        model.private_log_var[name].set_value(jnp.asarray(raw, float))
    if is_mixture:
        for name, value in {
            "logits": [0.2, -0.3],
            "loc": [[-0.8], [0.7]],
            "log_var": [[-0.5], [0.4]],
        }.items():
            model.clusters[name].set_value(jnp.asarray(value, float))
    return model


def toy_batch(repeats, patterns=PATTERNS):
    """Examples of every pattern, NaN in the place of missing modalities."""
    mask = {m: np.repeat([m in seen for seen in patterns], repeats) for m in DIMS}
    data = {m: np.where(seen[:, None], np.array(DATA[m]), np.nan) for m, seen in mask.items()}
    return mm.Batch(data, mask)


def _log_normal(x, loc, log_var):
    return norm.logpdf(x, loc, jnp.exp(log_var / 2))


def _log_weight(model, seen, u, w, own):
    """Log weight of particles of the expert ``own``, written out: w is ``{modality: [n]}``."""
    posterior = {m: [a[...] for a in (e.loc, e.log_var)] for m, e in model.encoders.items()}
    log_q = [_log_normal(u, posterior[m][0][0], posterior[m][1][0]) for m in seen]
    log_posterior = jax.nn.logsumexp(jnp.stack(log_q), axis=0) - jnp.log(len(seen))
    log_posterior += _log_normal(w[own], posterior[own][0][1], posterior[own][1][1])
    log_p = _log_normal(w[own], 0.0, model.prior_log_var[...][-1])
    if model.config.number_of_clusters == 1:
        log_p += _log_normal(u, 0.0, model.prior_log_var[...][0])
    else:
        logits, loc, log_var = (model.clusters[n][...] for n in ("logits", "loc", "log_var"))
        log_pi = jax.nn.log_softmax(logits)
        each = [log_pi[c] + _log_normal(u, loc[c, 0], log_var[c, 0]) for c in range(len(logits))]
        log_p += jax.nn.logsumexp(jnp.stack(each), axis=0)
    total = model.config.beta * (log_p - log_posterior)
    for m in seen:
        decoded = model.decoders[m](jnp.stack([u, w[m]], axis=-1))
        total += FACTORS[m] * norm.logpdf(jnp.asarray(DATA[m])[None], decoded).sum(-1)
    return total


def _particles(model, seen, own):
    """Log weights and probabilities of all particles of an expert, by Gauss-Hermite nodes.

    The nodes are reparameterised, ``z = loc + scale node``, so that the probabilities are constant.
    """
    axes = {"u": 32, **dict.fromkeys(seen, 10)}  # exact to 1e-4 of the gradient
    rules = [np.polynomial.hermite_e.hermegauss(n) for n in axes.values()]
    nodes = [a.ravel() for a in np.meshgrid(*(x for x, _ in rules), indexing="ij")]
    probs = np.prod(np.meshgrid(*(p / p.sum() for _, p in rules), indexing="ij"), axis=0).ravel()
    eps = dict(zip(axes, map(jnp.asarray, nodes), strict=True))
    loc, scale = model.encoders[own].loc[...], jnp.exp(model.encoders[own].log_var[...] / 2)
    w = {m: jnp.exp(model.private_log_var[m][...][0] / 2) * eps[m] for m in seen}
    w[own] = loc[1] + scale[1] * eps[own]
    return _log_weight(model, seen, loc[0] + scale[0] * eps["u"], w, own), jnp.asarray(probs)


def exact_bound(model, seen):
    """The expected bound of an example whose groups have one or two particles.

    These are looser bounds of K = 1 and 2, and the tight one of K = 1.
    """
    config, particles = model.config, [_particles(model, seen, own) for own in seen]
    is_looser = config.loss.endswith("_looser")
    assert config.K == 1 or (is_looser and config.K == 2)
    if is_looser and config.K == 2:
        return sum(_mean_of_pairs(one, one) for one in particles) / len(seen)
    if is_looser or len(seen) == 1:
        return sum(probs @ log_w for log_w, probs in particles) / len(seen)
    return _mean_of_pairs(*particles)


def _mean_of_pairs(first, second):
    (log_w, probs), (other_log_w, other_probs) = first, second
    pairs = jnp.logaddexp(log_w[:, None], other_log_w[None]) - jnp.log(2)
    return probs @ pairs @ other_probs


def exact_gradient(model, patterns=PATTERNS):
    """Gradient of the mean loss over the patterns, shaped like ``nnx.state(model, nnx.Param)``."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params):
        model = nnx.merge(graphdef, params, rest, copy=True)
        return -sum(exact_bound(model, seen) for seen in patterns) / len(patterns)

    return jax.grad(loss)(params)


def sampled_gradients(model, batch, keys):
    """Gradients of independent keys, stacked."""

    def gradient(key):
        _, grads = mm.value_and_grad(model, batch, key, backward=mm.Backward("dense"))
        return jax.tree.map(lambda g: g if g.size else jnp.zeros(1), grads)  # ``map`` needs a size

    return jax.lax.map(gradient, keys, batch_size=20)
