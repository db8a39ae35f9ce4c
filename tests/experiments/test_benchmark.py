"""The benchmark: its command line, its processes, its operation counts and its figure."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from helpers.official_files import TRAIN_LABELS, write_mnist

import mmvae_jax as mm
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import config as settings
from experiments.benchmark import contest, standin, sweep
from experiments.benchmark.cases import CASES
from experiments.benchmark.config import BenchmarkConfig
from experiments.benchmark.contest import Worker, measure
from experiments.benchmark.data import TINTS, make_batches
from experiments.benchmark.flops import forward_flops, model_flops, network_flops, product_size
from experiments.benchmark.models import build_model
from experiments.benchmark.report import align, report

ROOT = Path(__file__).parents[2]


def run_command(args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.benchmark", *args.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )


# Whole runs


@pytest.mark.slow
def test_a_run_reports_every_measurement():
    start = time.perf_counter()
    done = run_command("--case two_mlp --K 2 --batch 4 --backward sparse --json")
    elapsed = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # nothing else is printed there
    fields = {"case": "two_mlp", "task": "step", "K": 2, "batch": 4, "backward": "sparse"}
    assert fields.items() <= result.items()
    assert result["versions"]["jax"] == jax.__version__
    assert np.isfinite(result["metrics"]["loss"])

    seconds = result["seconds"]
    assert len(seconds["all"]) == 5
    assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
    # Seconds of parts of the command, on a machine of any speed.
    assert result["compile_seconds"] > 0
    assert result["compile_seconds"] + sum(seconds["all"]) < elapsed
    # The new state holds Adam's two moments, at least.
    assert result["temp_bytes"] > 2 * 4 * result["num_parameters"] / 10
    assert 1e8 < result["ready_resident_bytes"] <= result["peak_resident_bytes"] < 1e10

    encode = 2 * 4 * 2 * (784 * 512 + 512 * 512 + 2 * 512 * 20)
    decode = 2 * 2 * 4 * 2 * 2 * (20 * 512 + 512 * 784)
    assert result["forward_flops"] == pytest.approx(encode + decode, rel=0.02)
    share = result["backward_share"]
    assert 0 < share <= 1
    assert result["model_flops"] == pytest.approx(3 * encode + (1 + 3 * share) * decode, rel=0.02)
    rate = result["model_flops"] / seconds["median"]
    assert result["flops_per_second"] == pytest.approx(rate)
    product = result["product_flops_per_second"]
    assert 0 < product < np.inf
    assert result["product_fraction"] == pytest.approx(rate / product)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "latents"), [("step", ""), ("nll", ""), ("step", "--latent-dim 6 --private 3")]
)
@pytest.mark.parametrize("case", CASES)
def test_against_multivae(case, task, latents):
    pytest.importorskip("torch")
    pytest.importorskip("multivae")
    sizes = f"--case {case} --task {task} --K 4 --batch 4 {latents}"
    done = run_command(f"{sizes} --against multivae --json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    theirs = result["against"]
    assert theirs["num_parameters"] == result["num_parameters"]
    assert "torch" in theirs["versions"]
    medians = theirs["seconds"]["median"], result["seconds"]["median"]
    assert result["times_as_fast"] == pytest.approx(medians[0] / medians[1])
    peaks = result["peak_resident_bytes"], theirs["peak_resident_bytes"]
    assert result["share_of_memory"] == pytest.approx(peaks[0] / peaks[1])
    # Both models are new and see the same images: nats per example agree roughly. The loss of
    # MultiVae's model is sum w~ log w, which approaches the bound's as one weight dominates.
    metric = "nll" if task == "nll" else "loss"
    assert result["metrics"][metric] == pytest.approx(theirs["metrics"][metric], rel=0.05)


# Turns and processes


@pytest.fixture
def turns(monkeypatch) -> list[str]:
    """Names of fake workers in the order of their repetitions; the n-th takes n seconds."""
    turns = []

    class FakeWorker:
        def __init__(self, name, contender, config):
            self.name, self.count = name, 0
            self.description = {"temp_bytes": 600 if name == "big" else 400, "memory_bytes": 1000}

        def repeat(self, images):
            self.count += 1
            turns.append(self.name)
            metrics = {"loss": 2.0 * self.count, "backward_share": 0.5}
            return {"seconds": self.count, "metrics": metrics, "peak_resident_bytes": self.count}

        def close(self):
            turns.append(f"{self.name} closed")

    monkeypatch.setattr(contest, "Worker", FakeWorker)
    return turns


def test_contenders_take_turns(turns):
    entries = dict.fromkeys(("a", "big", "b"), BenchmarkConfig())
    a, b = measure(entries, iter([{}] * 7), memory_share=0.5)
    # Programs that are too large do not run; two repetitions of the others are not counted.
    assert turns == ["a", "b"] * 7 + ["b closed", "big closed", "a closed"]
    assert a["seconds"] == {"median": 5, "min": 3, "max": 7, "all": [3, 4, 5, 6, 7]}
    assert a["metrics"] == {"loss": 10.0, "backward_share": 0.5}
    assert a["peak_resident_bytes"] == 7
    assert b == {**a, "name": "b"}


def test_steps_of_training_come_first(turns):
    config = BenchmarkConfig(train_steps=3)
    measure({"ours": config, "multivae": config}, iter([{}] * 10))
    assert turns[:6] == ["ours"] * 4 + ["multivae", "ours"]


@pytest.mark.parametrize(
    ("contender", "config", "code"), [("os:_exit", 3, 3), ("signal:raise_signal", 9, -9)]
)
def test_a_process_that_ends_is_named(contender, config, code):
    with pytest.raises(ChildProcessError, match=f"^mine ended with exit code {code}"):
        Worker("mine", contender, config)


# Operations


@pytest.fixture(scope="module")
def models() -> dict[str, mm.MMVAE]:
    """The cases' models, of shapes without arrays."""
    return {
        name: nnx.eval_shape(lambda case=case: build_model(case, 1, 0))
        for name, case in CASES.items()
    }


@pytest.mark.parametrize(
    ("case", "modality", "num_encoder", "num_decoder"),
    [  # of MultiVae 1.0.3's networks
        ("two_mlp", "m0", 685_096, 412_944),
        ("mnist_svhn", "svhn", 247_560, 206_563),
        ("polymnist", "m4", 2_191_424, 1_143_747),
    ],
)
def test_networks_are_as_large_as_those_of_multivae(
    models, case, modality, num_encoder, num_decoder
):
    def count(network):
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))

    model = models[case]
    counts = count(model.encoders[modality]), count(model.decoders[modality])
    assert counts == (num_encoder, num_decoder)


def test_private_latents_belong_to_networks_of_the_whole_size():
    """An MMVAE+ has the networks of the MMVAE that it is compared with, and r_m(w) besides."""
    config = BenchmarkConfig(case="polymnist", latent_dim=6, private=3, against="mmvae")
    plus, mmvae = (
        nnx.eval_shape(lambda each=each: build_model(each.model_case, 1, 0))
        for each in (config, config.contender())
    )
    for part in ("encoders", "decoders"):
        ours, theirs = (nnx.state(getattr(model, part)) for model in (plus, mmvae))
        assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, theirs)
    assert (plus.config.latent_dim, mmvae.config.latent_dim) == (6, 9)
    assert plus.config.modalities_specific_dim == 3
    assert set(nnx.to_pure_dict(nnx.state(plus, nnx.Param))) == {
        "encoders",
        "decoders",
        "private_log_var",
    }


@pytest.mark.slow
def test_a_loss_in_turns_with_another():
    done = run_command("--case two_mlp --K 2 --batch 8 --loss iwae --against mixture_dreg --json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["loss"] == "iwae"
    ours, theirs = (each["metrics"]["loss"] for each in (result, result["against"]))
    assert theirs != pytest.approx(ours, rel=1e-6)  # of the same batches, by another bound


def test_operations_of_networks(models):
    mlp = network_flops(models["two_mlp"].decoders["m0"], (20,))
    assert mlp == pytest.approx(2 * (20 * 512 + 512 * 784), rel=0.03)
    # A transposed convolution multiplies each input by its whole kernel.
    svhn = network_flops(models["mnist_svhn"].decoders["svhn"], (20,))
    sizes = 16 * 20 * 128 + 16 * (16 * 128 * 64 + 64 * 64 * 32 + 256 * 32 * 3)
    assert svhn == pytest.approx(2 * sizes, rel=0.03)


def test_operations_of_a_step():
    counts = {"encoders": 10.0, "decoders": 100.0, "num_experts": 2, "K": 5, "batch": 3}
    encode, decode = forward_flops("step", **counts)
    assert (encode, decode) == (30, 3000)
    assert model_flops(encode, decode, backward="dense", share=1.0) == 9090
    assert model_flops(encode, decode, backward="sparse", share=0.5) == 90 + 3000 + 4500
    assert model_flops(encode, decode, backward="sparse", share=None) is None
    assert forward_flops("nll", **counts) == (30, 1500)
    assert model_flops(30, 1500, backward=None, share=None) == 1530


# Settings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"K": 0}, "K is 0"),
        ({"batch": -1}, "batch is -1"),
        ({"modalities": 3}, "modalities is 3"),
        ({"chunk": 0}, "chunk is 0"),
        ({"repeats": 4}, "repeats is 4"),
        ({"seed": -1}, "seed is -1"),
        ({"train_steps": 5}, "train_steps is 5"),
        ({"device": "gpu"}, "device is gpu"),
        ({"precision": "tf32"}, "precision is tf32"),
        ({"device": "cpu", "precision": "float32"}, "precision is float32"),
        ({"against": "dense", "task": "nll"}, "against is dense"),
        ({"against": "mixture_dreg", "task": "nll"}, "against is mixture_dreg"),
        ({"against": "mmvae"}, "against is mmvae"),
        ({"against": "dense", "backward": "dense"}, "against is dense"),
        ({"backward": "dense", "task": "nll"}, "backward is dense"),
        ({"tolerance": 0.1, "task": "nll"}, "tolerance is 0.1"),
        ({"num_backward": 2}, "num_backward is 2"),
        ({"num_backward": 2, "backward": "sparse"}, "num_backward is 2"),
        ({"values": (1,)}, r"values is \(1,\)"),
        ({"figure": Path("x.png")}, "figure is x.png"),
        ({"loss": "iwae", "task": "nll"}, "loss is iwae"),
        ({"loss": "iwae", "against": "multivae"}, "loss is iwae"),
        ({"latent_dim": 0}, "latent_dim is 0"),
        ({"private": -1}, "private is -1"),
        ({"private": 2, "task": "nll", "against": "multivae"}, "private is 2"),
        ({"sweep": "K", "against": "dense"}, "against is dense"),
        ({"sweep": "K", "task": "nll"}, "task is nll"),
        ({"sweep": "K", "backward": "dense"}, "backward is dense"),
        ({"sweep": "K", "K": 3}, "K is 3"),
        ({"sweep": "K", "values": (0,)}, r"values is \(0,\)"),
        ({"sweep": "K", "figure": Path("x.doc")}, "figure_file is x.doc"),
        ({"sweep": "K", "figure": Path("no/x.png")}, "figure_file is no/x.png"),
    ],
)
def test_wrong_values_are_named(fields, message, monkeypatch):
    monkeypatch.setattr(settings, "_has_gpu", lambda: False)  # on any machine
    with pytest.raises(ValueError, match=f"^{message}: "):
        BenchmarkConfig(**fields).check()


@pytest.mark.parametrize(
    ("fields", "is_on_cpu"),
    [
        ({}, False),
        ({"device": "cpu"}, True),
        ({"against": "dense"}, False),
        ({"against": "multivae"}, True),
        ({"against": "multivae", "device": "gpu"}, False),
    ],
)
def test_only_a_contest_with_multivae_is_on_cpu_by_default(fields, is_on_cpu):
    assert BenchmarkConfig(**fields).is_on_cpu == is_on_cpu


def test_a_gpu_is_found(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    BenchmarkConfig(device="gpu", precision="tf32").check()
    assert product_size() == 4 * 2048


def test_networks_compute_in_half_precision():
    for name, case in CASES.items():
        model = nnx.eval_shape(lambda case=case: build_model(case, 1, 0, dtype="bfloat16"))
        z = jax.ShapeDtypeStruct((1, case.latent_dim), np.float32)
        for modality, decoder in model.decoders.items():
            decoded = nnx.eval_shape(lambda decoder, z: decoder(z), decoder, z)
            assert decoded.dtype == "bfloat16", (name, modality)


def test_sizes_are_those_of_the_case():
    assert BenchmarkConfig(case="polymnist").problem()["K"] == 10
    assert BenchmarkConfig(case="polymnist", modalities=3).problem()["modalities"] == 3
    nll = BenchmarkConfig(case="mnist_svhn", task="nll")
    assert (nll.num_particles, nll.num_examples) == (1000, 32)


def test_multivae_has_to_be_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="against is multivae"):
        BenchmarkConfig(against="multivae").check()
    monkeypatch.undo()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(ValueError, match="batch is 1"):
        BenchmarkConfig(against="multivae", batch=1).check()


def test_stand_in_for_torchvision(monkeypatch):
    for name in standin.MODULES:
        # Cannot be imported; and monkeypatch knows the entry, to restore or to remove it.
        monkeypatch.setitem(sys.modules, f"torchvision{name}", None)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        standin.stand_in_for_torchvision()
    from torchvision.datasets.utils import download_and_extract_archive  # noqa: F401

    assert importlib.util.find_spec("torchvision")


# Data


def test_digits_of_an_example_have_one_class(tmp_path):
    images = write_mnist(tmp_path / "mnist")["train"]
    batches = make_batches(BenchmarkConfig(batch=20, data_dir=tmp_path))
    grey, colours = next(batches).values()
    assert grey.shape == (20, 28, 28, 1)
    assert colours.shape == (20, 32, 32, 3)
    assert grey.dtype == colours.dtype == np.float32
    assert (colours[:, :2] == 0).all()  # the margin

    flat = images.reshape(len(images), -1) / np.float32(255)

    def classes(digits):
        distances = np.abs(flat[:, None] - digits.reshape(1, 20, -1)).mean(-1)
        return TRAIN_LABELS[distances.argmin(0)]

    inside = colours[:, 2:-2, 2:-2] / np.array(TINTS[1], np.float32)
    np.testing.assert_array_equal(classes(grey), classes(inside[..., 0]))
    assert len(set(classes(grey))) > 3
    assert not np.array_equal(grey, next(batches)["mnist"])


def test_random_images_are_intensities():
    images = next(make_batches(BenchmarkConfig(case="polymnist", batch=3)))
    assert [image.shape for image in images.values()] == [(3, 28, 28, 3)] * 5
    assert all(0 <= image.min() < 0.1 and 0.9 < image.max() <= 1 for image in images.values())


def test_missing_digits_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path} lacks mnist/train-images"):
        BenchmarkConfig(data_dir=tmp_path).check()


# Reports


def fake_measure(entries, batches, *, memory_share=None):
    """A dense step costs K ms, the others cost half."""
    rows = []
    for name, config in entries.items():
        middle = config.num_particles * (1e-3 if config.backward == "dense" else 5e-4)
        rows.append({
            "name": name,
            "device": "cpu",
            "versions": {"jax": "1"},
            "num_parameters": 1000,
            "backward": config.backward,
            "compile_seconds": 2.0,
            "compilation_cache": None,
            "temp_bytes": 1e6 * config.num_particles,
            "ready_resident_bytes": 4e8,
            "peak_resident_bytes": 1e9 if config.backward == "dense" else 5e8,
            "seconds": {"median": middle, "min": middle, "max": 1.1 * middle, "all": [middle] * 5},
            "peak_device_bytes": None if config.precision is None else 2e9,
            "metrics": {"dropped_mass": 1e-5},
            "backward_share": 0.2,
        })  # fmt: skip
    return rows


def test_report_compares_the_contenders(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "measure", fake_measure)
    monkeypatch.setattr(benchmark.flops, "product_rate", lambda size, dtype: 1e12)
    sizes = {"latent_dim": 12, "private": 8}
    config = BenchmarkConfig(case="two_mlp", backward="sparse", against="dense", **sizes)
    result = benchmark.main(config)
    assert (result["times_as_fast"], result["share_of_memory"]) == (2.0, 0.5)
    title, *lines = capsys.readouterr().out.splitlines()
    sizes = "K 30, batch 128, tolerance 0.0001"
    latents = "12 shared and 8 private latents"
    assert title == f"two_mlp, sparse step: {sizes}, random images, {latents}"
    rows = [line for line in lines if line and not line.startswith("dense, in turns")]
    assert len({re.match(r"\S+( \S+)*  +", row).end() for row in rows}) == 1
    text = "\n".join(lines)
    for part in ("2.00 s", "median of 5", "500.0 MB resident", "20.0% of the", "2.00 by medians"):
        assert part in text
    assert "device memory" not in text
    assert report(result).splitlines() == [title, *lines]


def test_report_of_a_gpu(monkeypatch):
    monkeypatch.setattr(benchmark, "measure", fake_measure)
    monkeypatch.setattr(benchmark.flops, "product_rate", lambda size, dtype: 1e14)
    monkeypatch.setattr(benchmark, "use_device", lambda config: None)
    config = BenchmarkConfig(case="two_mlp", backward="sparse", precision="tf32", dtype="bfloat16")
    text = report(benchmark.compare(config.replace(against="dense")))
    for part in ("bfloat16, tf32 products\n", "2.00 GB on the GPU", "1.00, by peaks on the GPU"):
        assert part in text


def test_columns_are_aligned():
    rows = [("a title as long as it likes", ""), ("a", "b"), ("long", "c")]
    assert align(rows) == "a title as long as it likes\na     b\nlong  c"


def test_sweep_writes_its_figure_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "measure", fake_measure)
    monkeypatch.chdir(tmp_path)
    config = BenchmarkConfig(case="two_mlp", sweep="K", values=(1, 10))
    result = benchmark.main(config)
    file = tmp_path / "benchmark_two_mlp_K.png"
    drawn = file.read_bytes()
    assert drawn.startswith(b"\x89PNG")
    kinds = [(row["K"], row["name"]) for row in result["rows"]]
    assert kinds == [(K, kind) for K in (1, 10) for kind in ("dense", "sparse", "sampled")]
    printed = capsys.readouterr().out.splitlines()
    cells = "1 dense 1.0 ms 1.0 ms 1.1 ms 20.0% 1.0 MB 1.00 GB"
    assert " ".join(printed[1].split()) == cells
    assert printed[-1] == file.name

    with pytest.raises(ValueError, match=r"^figure_file is benchmark_two_mlp_K\.png: "):
        benchmark.main(config)
    assert file.read_bytes() == drawn
    benchmark.main(config.replace(figure=tmp_path / "other.pdf", json=True))
    assert json.loads(capsys.readouterr().out)["figure"] == str(tmp_path / "other.pdf")
