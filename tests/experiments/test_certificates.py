"""Estimates of log p(X) side by side, on a model whose likelihood is known."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

import mmvae_jax as mm
from experiments import certificates, runs
from experiments.certificates import CertificatesConfig, estimates, main, table
from experiments.digits import DigitsConfig
from experiments.finished_runs import experiment_of, load_model
from experiments.rows import Rows


@pytest.fixture
def exact():
    """A model whose decoders ignore z, four examples, and their mean of -log p(X)."""
    config = mm.MMVAEConfig(input_dims={"a": (2,), "b": (1,)}, latent_dim=2)
    model = mm.MMVAE(config, rngs=nnx.Rngs(0))
    for decoder in model.decoders.values():
        kernel = decoder.out.kernel
        kernel.set_value(0 * kernel[...])
        decoder.out.bias.set_value(0 * decoder.out.bias[...])
    rng = np.random.default_rng(0)
    data = {
        name: rng.normal(size=(4, *dim)).astype(np.float32)
        for name, dim in config.input_dims.items()
    }
    squares = sum((x**2).sum(1) for x in data.values())
    return model, mm.MultimodalArrays(data), float((squares + 3 * np.log(2 * np.pi)).mean() / 2)


@pytest.mark.slow
def test_all_estimates_agree_where_the_latent_does_not_matter(exact, tmp_path, monkeypatch, capsys):
    model, data, nll = exact
    monkeypatch.setattr(certificates, "trained", lambda name, config: (model, data))
    counts = {"particles": (1000,), "temperatures": (3,), "bounded": (3,), "num_chains": 2}
    config = CertificatesConfig(models=("factors",), num_examples=4, out=tmp_path, **counts)
    importance, annealing, both = main(config)
    np.testing.assert_allclose(annealing["nll"], nll, rtol=1e-5)
    np.testing.assert_allclose(importance["nll"], nll, rtol=0.01)
    assert importance["unreliable"] == 0
    assert importance["ess"] > 300
    assert abs(both["gap"]) < 1e-4
    np.testing.assert_allclose(both["lower"], both["upper"], rtol=1e-5)
    assert "annealing" in capsys.readouterr().out
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["method"] for line in lines] == [
        e["method"] for e in estimates(config)
    ]


def test_rows_that_exist_train_nothing(tmp_path):
    config = CertificatesConfig(models=("digits",), temperatures=(), bounded=(), out=tmp_path)
    kept = [
        {**config.identity("digits"), **e, "nll": 1.0, "seconds": 2.0} for e in estimates(config)
    ]
    rows = Rows(tmp_path, config)
    for row in kept:
        rows.add(row)
    assert main(config) == kept
    assert table(kept).splitlines()[-1].split() == [
        *("digits", "importance", "10000", "1.00", "-", "-", "-", "-", "-", "2.00")
    ]


RUN = DigitsConfig(hidden=(8,), modalities=2, latent_dim=2, seed=4)


def write_metrics(folder):
    content = {"experiment": "digits", "config": {**RUN.settings(), "of_an_old_version": 1}}
    runs.write_json(folder / runs.METRICS_FILE, content)


def test_the_settings_of_a_finished_run_are_read_from_its_folder(tmp_path):
    write_metrics(tmp_path)
    assert experiment_of(tmp_path) == RUN


@pytest.mark.slow
def test_a_finished_run_is_measured(tmp_path):
    """With the parameters of its checkpoint."""
    networks = RUN.make_networks(nnx.Rngs(1))
    model = mm.MMVAE(RUN.model_config(), *networks, rngs=nnx.Rngs(1))
    saved = mm.fit(
        mm.create_train_state(model, mm.make_optimizer(1e-3), key=jax.random.key(0)),
        RUN.load().train,
        num_steps=1,
        batch_size=2,
        progress=False,
        checkpointing=mm.Checkpointing(directory=tmp_path / runs.CHECKPOINTS),
    ).state.model()
    write_metrics(tmp_path)
    found = load_model(tmp_path, RUN)
    np.testing.assert_array_equal(
        found.decoders["m0"].out.kernel[...], saved.decoders["m0"].out.kernel[...]
    )
    counts = {"particles": (30,), "temperatures": (), "bounded": (), "num_examples": 2}
    (row,) = main(CertificatesConfig(run=tmp_path, out=tmp_path / "out", **counts))
    assert row["model"] == f"digits, {tmp_path.name}"
    assert np.isfinite(row["nll"])


def test_folders_of_other_things_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"run is .*which has no metrics\.json"):
        experiment_of(tmp_path)
    (tmp_path / runs.METRICS_FILE).write_text('{"experiment": "omics", "config": {}}')
    with pytest.raises(ValueError, match=r"experiment in .* is 'omics'"):
        experiment_of(tmp_path)


@pytest.mark.slow
def test_models_that_are_trained(tmp_path):
    counts = {"particles": (30,), "temperatures": (2,), "bounded": (2,), "num_chains": 2}
    rows = main(CertificatesConfig(num_steps=2, num_examples=2, out=tmp_path, **counts))
    assert [row["model"] for row in rows] == 3 * ["factors"] + 3 * ["digits"]
    assert all(np.isfinite(row.get("nll", row.get("gap"))) for row in rows)


@pytest.mark.parametrize(
    ("field", "value"), [("num_examples", 0), ("particles", (0,)), ("bounded", (0,))]
)
def test_wrong_settings(field, value):
    with pytest.raises(ValueError, match=f"{field} is 0"):
        CertificatesConfig(**{field: value})
