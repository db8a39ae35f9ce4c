"""What inference and the likelihood estimates say of bad input."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.separate_experts import CONFIG, LIKELIHOODS, key, make_batch, make_model

import mmvae_jax as mm

USER = CONFIG.replace(
    decoders_dist={**LIKELIHOODS, "a": lambda decoded, x: -jnp.square(decoded - x).sum()},
    decoder_dist_params=None,
)
EMPTY = mm.Batch({})
Z = jnp.zeros((3, 2))
UNKNOWN = r"give 'all', or names among \['a', 'b', 'c', 'd'\]"

WRONG = {
    "cond_mod-unknown": (
        lambda model, batch: mm.encode(model, batch, key(), cond_mod="image"),
        rf"cond_mod is 'image': {UNKNOWN}",
    ),
    "cond_mod-one-of-them-unknown": (
        lambda model, batch: mm.predict(model, batch, key(), cond_mod=("a", "x")),
        rf"cond_mod is \['a', 'x'\]: {UNKNOWN}",
    ),
    "cond_mod-empty": (
        lambda model, batch: mm.encode(model, batch, key(), cond_mod=()),
        rf"cond_mod is \[\]: {UNKNOWN}",
    ),
    "cond_mod-missing": (
        lambda model, batch: mm.encode(model, batch, key(), cond_mod="a"),
        r"cond_mod is 'a'",
    ),
    "gen_mod": (
        lambda model, batch: mm.predict(model, batch, key(), gen_mod="e"),
        rf"gen_mod is 'e': {UNKNOWN}",
    ),
    "modalities": (
        lambda model, batch: mm.decode(model, Z, modalities=["d", "e"]),
        rf"modalities is \['d', 'e'\]: {UNKNOWN}",
    ),
    "N": (
        lambda model, batch: mm.encode(model, batch, key(), N=0),
        "N is 0: give an integer of at least 1",
    ),
    "N-of-reconstruct": (
        lambda model, batch: mm.reconstruct(model, batch, key(), N=-1),
        "N is -1: give an integer of at least 1",
    ),
    "N-bool": (
        lambda model, batch: mm.predict(model, batch, key(), N=True),
        "N is True: give an integer of at least 1",
    ),
    "n_samples": (
        lambda model, batch: mm.generate(model, key(), 0),
        "n_samples is 0: give an integer of at least 1",
    ),
    "key-of-encode": (
        lambda model, batch: mm.encode(model, batch, None),
        r"key is None: give jax.random.key\(...\), or return_mean=True",
    ),
    "key-of-reconstruct": (
        lambda model, batch: mm.reconstruct(model, batch, None),
        r"key is None: give jax.random.key\(...\), or return_mean=True",
    ),
    "key-of-sample": (
        lambda model, batch: mm.decode(model, Z, sample=True),
        r"sample is True and key is None: give key=jax.random.key\(...\)",
    ),
    "key-of-sampled-mean": (
        lambda model, batch: mm.predict(model, batch, None, return_mean=True, sample=True),
        r"sample is True and key is None: give key=jax.random.key\(...\)",
    ),
    "sample-of-a-function": (
        lambda model, batch: mm.generate(make_model(USER), key(), 2, sample=True),
        r"sample is True, but the likelihoods of \['a'\] give densities and no draws: use sample=F",
    ),
    "z-size": (
        lambda model, batch: mm.decode(model, jnp.zeros((2, 3))),
        r"z has shape \(2, 3\), expected \(..., 2\): latent_dim is 2",
    ),
    "batch-shape": (
        lambda model, batch: mm.encode(model, mm.Batch({"b": np.zeros((4, 1, 3, 2))}), key()),
        r"batch.data\['b'\] has shape \(4, 1, 3, 2\), expected \('b', 3, 2, 1\).*channels last",
    ),
    "batch-dtype": (
        lambda model, batch: mm.predict(model, mm.Batch({"a": np.zeros((4, 2), np.int8)}), key()),
        r"batch.data\['a'\] has dtype int8, expected a floating type, or uint8",
    ),
    "batch-names": (
        lambda model, batch: mm.reconstruct(model, mm.Batch({"e": np.zeros((4, 2))}), key()),
        r"batch.data has the modalities \['e'\].*unknown \['e'\]",
    ),
    "batch-lengths": (
        lambda model, batch: mm.encode(
            model, mm.Batch({"a": np.zeros((4, 2)), "d": np.zeros((5, 3))}), key()
        ),
        r"batch.data has the numbers of examples \{'a': 4, 'd': 5\}",
    ),
    "batch-empty": (lambda model, batch: mm.encode(model, EMPTY, key()), "batch.data"),
    "mask-without-data": (
        lambda model, batch: mm.encode(
            model, mm.Batch({"a": batch.data["a"]}, {m: batch.mask[m] for m in "ab"}), key()
        ),
        r"batch.mask\['b'\] says that 'b' is observed, but batch.data lacks it: add",
    ),
    "K": (
        lambda model, batch: mm.compute_joint_nll(model, batch, key(), K=0),
        "K is 0: give an integer of at least 1",
    ),
    "batch_size_K": (
        lambda model, batch: mm.compute_joint_nll_paper(model, batch, key(), batch_size_K=0),
        "batch_size_K is 0: give an integer of at least 1",
    ),
    "prior_share": (
        lambda model, batch: mm.compute_joint_nll(model, batch, key(), prior_share=1.0),
        "prior_share is 1.0: give a number of at least 0 and below 1",
    ),
    "modality": (
        lambda model, batch: mm.compute_marginal_nll(model, batch, key(), modality="e"),
        r"modality is 'e': give one name among \['a', 'b', 'c', 'd'\]",
    ),
    "modality-all": (
        lambda model, batch: mm.compute_marginal_nll(model, batch, key(), modality="all"),
        "modality is 'all': give one name among",
    ),
    "pred_mods": (
        lambda model, batch: mm.compute_cond_nll(model, batch, key(), cond_mod="a", pred_mods="e"),
        rf"pred_mods is 'e': {UNKNOWN}",
    ),
    "pred_mods-overlap": (
        lambda model, batch: mm.compute_cond_nll_ratio(
            model, batch, key(), cond_mod=("a", "b"), pred_mods=("b", "c")
        ),
        r"cond_mod and pred_mods both name \['b'\]: what is conditioned on is not predicted",
    ),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(make_model(), make_batch())
