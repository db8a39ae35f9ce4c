"""The benchmark: its command line, its processes, and what it counts."""

import contextlib
import gzip
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

import mmvae_jax as mm
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import contest, data, host, sweep
from experiments.benchmark.cases import CASES
from experiments.benchmark.config import Config
from experiments.benchmark.flops import forward_flops, model_flops
from experiments.benchmark.models import build_model
from experiments.benchmark.rates import network_flops
from experiments.benchmark.report import aligned, report
from experiments.benchmark.standin import Finder
from experiments.benchmark.turns import WorkerError, means, spread, started, take_turns

ROOT = Path(__file__).parents[2]


def run_command(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.benchmark", *args]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def tiny() -> dict:
    """A whole run from the command line."""
    args = "--case two_mlp --K 2 --batch 4 --backward sparse --json"
    done = run_command(*args.split())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # nothing else is there


def test_json_has_every_field(tiny):
    asked = {"case": "two_mlp", "task": "step", "K": 2, "batch": 4, "backward": "sparse"}
    assert asked.items() <= tiny.items()
    assert tiny["data"] == "random images"
    assert tiny["versions"]["jax"] == jax.__version__
    assert set(tiny["versions"]) == {"mmvae_jax", "jax", "jaxlib", "flax", "python"}
    assert tiny["device"].endswith(f"{host.usable_cores()} cores")
    assert 0 < tiny["compile_seconds"] < 120
    assert np.isfinite(tiny["metrics"]["loss"])


def test_times_and_memory_are_plausible(tiny):
    seconds = tiny["seconds"]
    assert len(seconds["all"]) == 5
    assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"] < 60
    assert seconds["median"] == np.median(seconds["all"])
    # Adam's two moments of the new state, at least.
    assert tiny["temp_bytes"] > 2 * 4 * tiny["num_parameters"] / 10
    assert 0 <= tiny["load_of_others"] <= 1
    assert 1e8 < tiny["ready_resident_bytes"] <= tiny["peak_resident_bytes"] < 1e10


@pytest.mark.slow
def test_compilation_cache_is_filled_and_then_used(tmp_path):
    config = Config(case="two_mlp", K=2, batch=4, compilation_cache=tmp_path / "cache")
    results = []
    for _ in range(2):
        results += contest.measure([contest.Entry("ours", "ours", config)], repeats=1)
        programs = {file.name for file in config.compilation_cache.glob("jit_*train_step*-cache")}
        assert len(programs) == 1
    cold, warm = (result["compile_seconds"] for result in results)
    assert warm < 0.7 * cold


def test_operations_and_rates_agree(tiny):
    num_particles = 2 * 2 * 4
    encode = 2 * 4 * 2 * (784 * 512 + 512 * 512 + 2 * 512 * 20)
    decode = num_particles * 2 * 2 * (20 * 512 + 512 * 784)
    assert tiny["forward_flops"] == pytest.approx(encode + decode, rel=0.02)
    share = tiny["backward_share"]
    assert 0 < share <= 1
    assert tiny["model_flops"] == pytest.approx(3 * encode + (1 + 3 * share) * decode, rel=0.02)
    rate = tiny["model_flops"] / tiny["seconds"]["median"]
    assert tiny["flops_per_second"] == pytest.approx(rate)
    assert tiny["product_flops_per_second"] > 1e9
    assert 0 < tiny["product_fraction"] < 1


def test_report_is_aligned_and_complete(tiny):
    other = {**tiny, "name": "multivae", "versions": {"torch": "2"}}
    compared = {**tiny, "against": other, "times_as_fast": 3.456, "share_of_memory": 0.5}
    compared["times_as_fast_at_best"] = 2.71
    title, *lines = report(compared).splitlines()
    assert title == "two_mlp, sparse step: K 2, batch 4, tolerance 0.0001, random images"
    rows = [line for line in lines if line and not line.startswith("multivae")]
    assert len({re.match(r"\S+( \S+)*  +", row).end() for row in rows}) == 1
    text = "\n".join(lines)
    for word in (
        "compile",
        "median of 5",
        "resident",
        "of the particles",
        "3.46 by",
        "2.71 by",
        "0.50",
    ):
        assert word in text


def test_columns_are_aligned():
    rows = [("a title as long as it likes", ""), ("a", "b"), ("long", "c")]
    assert aligned(rows) == "a title as long as it likes\na     b\nlong  c"


class Fake:
    """A worker that answers 1, 2, 3, ... and notes when it was asked."""

    def __init__(self, name: str, asked: list, ready: dict | None = None):
        self.name, self.asked, self.ready, self.count = name, asked, ready or {}, 0

    def ask(self, command: str) -> dict:
        self.asked.append((self.name, command))
        if command == "repeat":
            self.count += 1
            return {"seconds": self.count, "metrics": {"loss": 2.0 * self.count}}
        return {"peak_resident_bytes": 7, "process_seconds": 0.1 * self.count}


def test_contenders_take_turns():
    asked = []
    answers = take_turns([Fake("a", asked), Fake("b", asked)], repeats=3, num_warm_up=2)
    assert [name for name, _ in asked] == ["a", "b"] * 5
    # The first two repetitions of each are not counted.
    assert [[each["seconds"] for each in given] for given in answers] == [[3, 4, 5]] * 2


def test_measurements_of_several(monkeypatch):
    asked = []

    @contextlib.contextmanager
    def started(entry):
        size = 600 if entry.label == "big" else 400
        ready = {"temp_bytes": size, "available_bytes": 1000, "backward": entry.label}
        yield Fake(entry.label, asked, ready)
        asked.append((entry.label, "gone"))

    monkeypatch.setattr(contest, "_started", started)
    entries = [contest.Entry(label, "ours", Config()) for label in ("dense", "big", "sparse")]
    dense, big, sparse = contest.measure(entries, 5, memory_share=0.5)
    assert "more than 50%" in big["skipped"]
    assert "seconds" not in big
    assert asked.index(("big", "gone")) < asked.index(("sparse", "prepare"))
    assert dense["seconds"] == {"median": 5, "min": 3, "max": 7, "all": [3, 4, 5, 6, 7]}
    assert dense["metrics"] == {"loss": 10.0}
    assert (dense["backward_share"], sparse["backward_share"]) == (1.0, None)
    assert sparse["peak_resident_bytes"] == 7


def test_load_of_others_is_what_the_workers_did_not_use(monkeypatch):
    # Ten seconds on four cores, busy for 24 s in all; the workers used 3 s and 1 s of them.
    clocks = {"busy": iter([100.0, 124.0]), "wall": iter([50.0, 60.0])}
    monkeypatch.setattr(contest.host, "busy_seconds", lambda: next(clocks["busy"]))
    monkeypatch.setattr(contest.host, "usable_cores", lambda: 4)
    monkeypatch.setattr(contest.time, "perf_counter", lambda: next(clocks["wall"]))
    workers = [Fake("a", []), Fake("b", [])]
    with contest._load_of_others(workers) as load:
        workers[0].count, workers[1].count = 30, 10
    assert load == {"load_of_others": pytest.approx((24 - 4) / 10 / 4)}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no /proc/stat")
def test_busy_seconds_grow_with_work():
    before, own = host.busy_seconds(), time.process_time()
    while time.process_time() < own + 0.2:
        pass
    assert 0.1 < host.busy_seconds() - before < 10 * host.usable_cores()


def test_statistics():
    assert spread([3.0, 1.0, 2.0, 10.0]) == (2.5, 1.0, 10.0)
    assert means([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}]) == {"a": 2.0, "b": 3.0}


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise ValueError('no such thing')", "mine ended with code 1: ValueError: no such thing"),
        (
            "import os; os.kill(os.getpid(), 9)",
            "mine was ended by signal 9, as one that is out of memory: no",
        ),
        ("print('{}', flush=True); input(); exit(3)", "mine ended with code 3: no message"),
        ("import os; os.close(0); print('{}', flush=True); exit(4)", "mine ended with code 4"),
    ],
)
def test_a_dying_worker_ends_the_run_with_its_message(program, message):
    command = [sys.executable, "-c", program]

    def ask_twice():
        with started("mine", command) as worker:
            take_turns([worker], repeats=2, num_warm_up=0)

    with pytest.raises(WorkerError, match=message):
        ask_twice()


def test_what_a_worker_wrote_is_shown(monkeypatch, capsys):
    def dying(config):
        raise WorkerError("ours ended with code 1: last line", "first line\nlast line")

    monkeypatch.setattr(benchmark, "contest", dying)
    monkeypatch.setattr(sys, "argv", ["benchmark"])
    with pytest.raises(SystemExit) as end:
        benchmark.command_line()
    shown = capsys.readouterr()
    assert (end.value.code, shown.out) == (1, "")
    assert shown.err == "first line\nlast line\nerror: ours ended with code 1: last line\n"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no VmHWM")
def test_peak_memory_is_not_that_of_the_parent():
    child = "from experiments.benchmark import host; print(host.peak_resident_bytes())"
    parent = (
        f"import subprocess, sys; ballast = b'1' * 500_000_000\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    command = [sys.executable, "-c", parent]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 1e6 < int(done.stdout) < 2e8


# Read off MultiVae 1.0.3's encoders and decoders of the same shapes.
NUM_PARAMETERS = {
    ("two_mlp", "m0"): (685_096, 412_944),
    ("mnist_svhn", "mnist"): (685_096, 412_944),
    ("mnist_svhn", "svhn"): (247_560, 206_563),
    ("polymnist", "m4"): (2_191_424, 1_143_747),
}


@pytest.fixture(scope="module")
def models() -> dict[str, mm.MMVAE]:
    """Models of shapes, without arrays."""
    return {
        name: nnx.eval_shape(lambda case=case: build_model(case, 1, 0))
        for name, case in CASES.items()
    }


@pytest.mark.parametrize(("case", "modality"), NUM_PARAMETERS)
def test_networks_are_as_large_as_those_of_multivae(models, case, modality):
    def count(network):
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))

    model = models[case]
    counts = count(model.encoders[modality]), count(model.decoders[modality])
    assert counts == NUM_PARAMETERS[case, modality]


def test_cases_are_those_of_the_comparison(models):
    for name, (M, d, K, batch) in {
        "two_mlp": (2, 20, 30, 128),
        "mnist_svhn": (2, 20, 30, 128),
        "polymnist": (5, 512, 10, 32),
    }.items():
        config = models[name].config
        assert (len(config.modalities), config.latent_dim) == (M, d)
        assert (Config(case=name).num_particles, Config(case=name).num_examples) == (K, batch)
        assert (config.loss, config.prior_and_posterior_dist) == (
            "dreg_looser",
            "laplace_with_softmax",
        )
        assert {config.likelihood(m)[0] for m in config.modalities} == {"laplace"}
        assert {config.likelihood(m)[1]["scale"] for m in config.modalities} == {0.75}
    nll = Config(case="mnist_svhn", task="nll")
    assert (nll.num_particles, nll.num_examples) == (1000, 32)


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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"K": 0}, "K is 0: give an integer of at least 1"),
        ({"batch": -1}, "batch is -1: give an integer of at least 1"),
        ({"modalities": 3}, "modalities is 3: give at least 2, and --case polymnist"),
        ({"chunk": 0}, "chunk is 0: give an integer of at least 1"),
        ({"num_backward": 0}, "num_backward is 0: give an integer of at least 1"),
        ({"repeats": 4}, "repeats is 4: give at least 5"),
        ({"compilation_cache": Path(__file__)}, "compilation_cache is .*: it is a file, give"),
        ({"seed": -1}, "seed is -1: give an integer of at least 0"),
        ({"tolerance": 1.0}, "tolerance is 1.0: give a share from 0 to below 1"),
        ({"train_steps": 5}, "train_steps is 5: random images teach nothing, add --data-dir"),
        ({"sweep": "K", "against": "dense"}, "against is 'dense': leave it out"),
        ({"sweep": "K", "task": "nll"}, "task is 'nll': a sweep compares steps"),
        ({"sweep": "K", "backward": "dense"}, "backward is 'dense': a sweep takes three"),
        ({"sweep": "K", "K": 3}, "K is 3: the sweep sets it, give --values"),
        ({"sweep": "batch", "values": (0,)}, r"values is \(0,\): give integers of at least 1"),
        ({"values": (1,)}, r"values is \(1,\): add --sweep"),
        ({"figure": Path("x.png")}, "figure is .*x.png.*: add --sweep"),
        ({"sweep": "K", "figure": Path("x.doc")}, "figure is x.doc: end its name in .png"),
        ({"sweep": "K", "figure": Path("no/x.png")}, "figure is no/x.png: there is no such folder"),
        ({"against": "dense", "task": "nll"}, "against is 'dense': choose --task step"),
    ],
)
def test_wrong_values_are_named(fields, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Config(**fields).check()


def test_wrong_commands_end_with_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--K", "0"])
    with pytest.raises(SystemExit) as end:
        benchmark.command_line()
    shown = capsys.readouterr()
    assert (end.value.code, shown.out) == (2, "")
    assert shown.err == "error: K is 0: give an integer of at least 1\n"


def test_multivae_is_asked_for_where_it_is_missing(monkeypatch):
    find_spec = importlib.util.find_spec

    def without(*missing):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name in missing else find_spec("json")
        )

    without("multivae")
    message = "multivae cannot be imported, install them with `pip install torch multivae`"
    with pytest.raises(ValueError, match=f"^against is 'multivae': {message}"):
        Config(against="multivae").check()
    without("multivae", "torch")
    with pytest.raises(ValueError, match="torch and multivae cannot be imported"):
        Config(against="multivae").check()
    without()
    Config(against="multivae").check()
    with pytest.raises(ValueError, match=r"batch is 1: MultiVae's .* at least 2"):
        Config(against="multivae", batch=1).check()


def test_settings_reach_workers_unchanged():
    paths = {"data_dir": Path("digits"), "compilation_cache": Path("cache")}
    config = Config(case="polymnist", K=3, sweep="K", values=(1, 2), **paths)
    assert Config.from_json(config.to_json()) == config


def test_stand_in_for_torchvision():
    spec = Finder().find_spec("torchvision.datasets.utils", None)
    module = importlib.util.module_from_spec(spec)
    assert isinstance(module.download_and_extract_archive, type)
    assert not hasattr(module, "__all__")
    assert Finder().find_spec("torch", None) is None


@pytest.fixture
def digits(tmp_path) -> Path:
    """MNIST's files with 30 digits; every pixel of a digit of class c is 10 c + 5."""
    labels = np.arange(30, dtype=np.uint8) % 10
    images = np.broadcast_to((10 * labels + 5)[:, None, None], (30, 28, 28))
    magic = {"images": b"\0\0\x08\x03", "labels": b"\0\0\x08\x01"}
    shapes = {"images": np.array([30, 28, 28], ">u4"), "labels": np.array([30], ">u4")}
    contents = {"images": images.tobytes(), "labels": labels.tobytes()}
    names = {"images": data.IDX_FILES[0], "labels": f"{data.IDX_FILES[1]}.gz"}
    for what, name in names.items():
        content = magic[what] + shapes[what].tobytes() + contents[what]
        zipped = name.endswith(".gz")
        (tmp_path / name).write_bytes(gzip.compress(content) if zipped else content)
    return tmp_path


def test_digits_of_an_example_are_of_one_class(digits):
    batches = data.batches(CASES["mnist_svhn"], 20, 0, digits)
    first, second = next(batches), next(batches)
    assert {name: images.shape for name, images in first.items()} == {
        "mnist": (20, 28, 28, 1),
        "svhn": (20, 32, 32, 3),
    }
    assert {images.dtype for images in first.values()} == {np.dtype(np.float32)}
    grey, colours = first["mnist"], first["svhn"]
    inside = np.array(data.TINTS[1], np.float32) * grey[:, 0, 0]
    np.testing.assert_allclose(colours[:, 16, 16], inside, rtol=1e-6)
    assert (colours[:, :2] == 0).all()  # the margin
    assert len(set(grey[:, 0, 0, 0])) > 3
    assert not np.array_equal(grey, second["mnist"])
    again = next(data.batches(CASES["mnist_svhn"], 20, 0, digits))
    np.testing.assert_array_equal(again["svhn"], colours)


def test_random_images_are_intensities():
    images = next(data.batches(CASES["polymnist"], 3, 0, None))
    assert [image.shape for image in images.values()] == [(3, 28, 28, 3)] * 5
    assert all(0 <= image.min() < 0.1 and 0.9 < image.max() <= 1 for image in images.values())


def test_missing_digits_are_named(digits):
    (digits / data.IDX_FILES[0]).unlink()
    expected = "it lacks train-images-idx3-ubyte, expected are .* and .* with or without .gz"
    with pytest.raises(ValueError, match=f"^data_dir is .*: {expected}"):
        Config(data_dir=digits).check()


def fake_measurements(entries, repeats, *, memory_share):
    """A dense step costs K ms and no longer fits from K = 10 on; others cost half."""
    rows = []
    for label, contender, config in entries:
        assert (contender, config.backward) == ("ours", label)
        K = config.num_particles
        row = {"name": label, "device": "cpu", "versions": {"jax": "1"}, "temp_bytes": 1e6 * K}
        if label == "dense" and K >= 10:
            rows.append({**row, "skipped": "needs more"})
            continue
        middle = K * (1e-3 if label == "dense" else 5e-4)
        seconds = {"median": middle, "min": 0.9 * middle, "max": 1.1 * middle}
        rows.append({**row, "seconds": seconds, "backward_share": 0.2, "peak_resident_bytes": 1e9})
    return rows


def test_sweep_writes_its_figure_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "measure", fake_measurements)
    monkeypatch.chdir(tmp_path)
    config = Config(case="two_mlp", sweep="K", values=(1, 10))
    result = benchmark.main(config)
    file = tmp_path / "benchmark_two_mlp_K.png"
    drawn = file.read_bytes()
    assert drawn.startswith(b"\x89PNG")
    kinds = [(row["K"], row["name"], "skipped" in row) for row in result["rows"]]
    assert kinds == [
        (K, kind, kind == "dense" and K == 10)
        for K in (1, 10)
        for kind in ("dense", "sparse", "sampled")
    ]
    assert (result["batch"], result["figure"]) == (128, file.name)
    printed = capsys.readouterr().out.splitlines()
    cells = "1 dense 1.0 ms 0.9 ms 1.1 ms 20.0% 1.0 MB 1.00 GB"
    assert " ".join(printed[2].split()) == cells
    assert printed[-2:] == ["skipped dense at K = 10: needs more", file.name]

    with pytest.raises(ValueError, match=r"figure is benchmark_two_mlp_K\.png: it exists, choose"):
        benchmark.main(config)
    assert file.read_bytes() == drawn
    benchmark.main(config.replace(figure=tmp_path / "other.pdf", json=True))
    assert json.loads(capsys.readouterr().out)["figure"] == str(tmp_path / "other.pdf")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["step", "nll"])
@pytest.mark.parametrize("case", CASES)
def test_against_multivae(case, task):
    pytest.importorskip("torch")
    if importlib.util.find_spec("multivae") is None:
        pytest.skip("multivae is not installed")
    sizes = f"--case {case} --task {task} --K 4 --batch 4"
    done = run_command(*sizes.split(), "--against", "multivae", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    theirs = result["against"]
    assert theirs["num_parameters"] == result["num_parameters"]
    assert "torch" in theirs["versions"]
    medians = theirs["seconds"]["median"], result["seconds"]["median"]
    assert result["times_as_fast"] == pytest.approx(medians[0] / medians[1])
    peaks = result["peak_resident_bytes"], theirs["peak_resident_bytes"]
    assert result["share_of_memory"] == pytest.approx(peaks[0] / peaks[1])
    if task == "nll":
        # Untrained, so only roughly: both see the same images, nats per example.
        assert result["metrics"]["nll"] == pytest.approx(theirs["metrics"]["nll"], rel=0.05)
