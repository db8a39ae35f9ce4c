"""Numbers of the documentation: records, pages, and the program that measures them."""

import doctest
import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from experiments.benchmark import host
from experiments.results import __main__ as program
from experiments.results import markdown, pages, records, run_study
from experiments.results.__main__ import ResultsConfig, listing, main
from experiments.results.studies import STUDIES, Study
from experiments.results.tables import TABLES
from experiments.results.training_tables import diverged

RECORDS = sorted(records.RESULTS.glob("*.json"))


@pytest.mark.parametrize("page", pages.paths(), ids=lambda path: path.name)
def test_pages_have_the_numbers_of_the_records(page):
    text = page.read_text(encoding="utf-8")
    assert pages.filled(text) == text, "run `python -m experiments.results tables`"


@pytest.mark.parametrize("page", pages.paths(), ids=lambda path: path.name)
def test_phrases_do_not_begin_a_line(page):
    """There, Markdown takes the comment for the end of the paragraph."""
    broken = re.findall(r"^ *<!-- results: [\w.]+ -->.+", page.read_text(), re.MULTILINE)
    assert not broken


def test_every_table_is_on_a_page():
    shown = {name for page in pages.paths() for name in pages.blocks(page.read_text())}
    assert shown == set(TABLES)


@pytest.mark.parametrize("file", RECORDS, ids=lambda path: path.stem)
def test_records_say_how_they_came_about(file):
    record = records.read(file.stem)
    assert record.study == file.stem
    assert re.fullmatch(r"[0-9a-f]{7}(, [0-9a-f]{7})*", record.commit)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record.date)
    assert record.device
    assert record.versions["jax"]
    assert record.rows
    assert '"/' not in file.read_text()  # no path of a machine


def test_examples_in_docstrings():
    results = doctest.testmod(markdown)
    assert results.attempted >= 3
    assert results.failed == 0


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.name)
def test_commands_name_programs(study):
    assert study.commands
    for command in study.commands:
        module, *arguments = shlex.split(command.format(out="OUT", data="DATA", first="RUN"))
        assert importlib.util.find_spec(f"experiments.{module}") is not None
        assert "--out" in arguments or "--json" in arguments


def test_a_changed_number_is_put_right_and_unknown_blocks_are_refused():
    block = "before <!-- results: exactness -->{}<!-- end of results --> after"
    if not records.path_of("exactness").exists():
        pytest.skip("the study exactness has no record yet")
    right = pages.filled(block.format("old"))
    assert "old" not in right
    assert pages.filled(right) == right
    with pytest.raises(ValueError, match="results is 'none'"):
        pages.filled(block.replace("exactness", "none").format(""))
    with pytest.raises(ValueError, match="no `<!-- end of results -->`"):
        pages.filled("<!-- results: exactness --> text")


def test_a_study_keeps_what_has_finished(tmp_path, monkeypatch):
    called = []

    def call(command, **settings):
        called.append(command)
        out = command[command.index("--out") + 1]
        if "tumours" in command:
            return subprocess.CompletedProcess(command, 1)
        folder = tmp_path / "runs" / "small" / out.split("/")[-2] / "out"
        folder.mkdir()
        (folder / "rows.jsonl").write_text('{"loss": 1.5}\n{"loss": 2.5}\n')
        return subprocess.CompletedProcess(command, 0, stdout="")

    monkeypatch.setattr(run_study, "check_commit", lambda: "0123456")
    monkeypatch.setattr(run_study.subprocess, "run", call)
    first, second = "stability --out {out}", "stability --data tumours --out {out}"
    study = Study("small", "two commands", 1, (first, second))
    with pytest.raises(ChildProcessError, match="stability failed"):
        run_study.run(study, tmp_path / "runs", None)
    assert len(called) == 2
    record = run_study.run(study._replace(commands=(first,)), tmp_path / "runs", None)
    assert len(called) == 2  # the first command is not run again
    assert record.rows == [{"loss": 1.5}, {"loss": 2.5}]
    assert record.commands == ["python -m experiments.stability"]
    assert record.commit == "0123456"


def test_studies_of_times_run_alone_and_others_on_one_core(tmp_path, monkeypatch):
    called = []

    def call(command, *, env, **settings):
        called.append((command[2].removeprefix("experiments."), env.get("NPROC")))
        return subprocess.CompletedProcess(command, 0, stdout='{"loss": 1.5}\n')

    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setattr(run_study, "check_commit", lambda: "0123456")
    monkeypatch.setattr(run_study.subprocess, "run", call)
    studies = [
        Study(name, "", 1, (f"{name} --out x",), has_times)
        for name, has_times in (("a", False), ("b", True), ("c", False), ("d", True))
    ]
    found = [record.study for record in run_study.run_all(studies, tmp_path, None, 2)]
    assert found[:2] == ["b", "d"]
    assert sorted(found[2:]) == ["a", "c"]
    assert called[:2] == [("b", None), ("d", None)]
    assert sorted(called[2:]) == [("a", "1"), ("c", "1")]
    called.clear()
    again = run_study.run_all(studies, tmp_path / "again", None, 1)
    assert [record.study for record in again] == ["a", "b", "c", "d"]
    assert {processes for _, processes in called} == {None}


def interrupted(monkeypatch, leave):
    """Makes the first command fail after ``leave(out)``; returns the calls: arguments, and files.

    Every command has a commit of its own.
    """
    called, commits = [], iter(f"commit{i}" for i in range(100))

    def call(command, **settings):
        out = Path(command[command.index("--out") + 1])
        called.append((command, sorted(file.name for file in out.rglob("*"))))
        leave(out)
        return subprocess.CompletedProcess(command, int(len(called) == 1), stdout="{}\n")

    monkeypatch.setattr(run_study, "check_commit", lambda: next(commits))
    monkeypatch.setattr(run_study.subprocess, "run", call)
    return called


@pytest.mark.parametrize(
    ("left", "has_times", "is_continued"),
    [
        ("checkpoints/500", False, True),
        ("checkpoints/500", True, False),
        ("checkpoints/500.tmp", False, False),
        ("classifier", False, False),
        ("rows.jsonl", True, True),
    ],
)
def test_a_stopped_command_is_resumed_or_begun_anew(
    tmp_path, monkeypatch, left, has_times, is_continued
):
    def leave(out):
        (out / left).parent.mkdir(parents=True, exist_ok=True)
        if left == "rows.jsonl":
            (out / left).write_text("{}\n")
        else:
            (out / left).mkdir(exist_ok=True)

    called = interrupted(monkeypatch, leave)
    study = Study("small", "", 1, ("digits --out {out}",), has_times)
    with pytest.raises(ChildProcessError):
        run_study.run(study, tmp_path, None)
    record = run_study.run(study, tmp_path, None)
    assert ("--resume" in called[1][0]) == (is_continued and left != "rows.jsonl")
    assert bool(called[1][1]) == is_continued
    # The commits of `check` before each call are not those of attempts.
    assert record.commit == ("commit1, commit3" if is_continued else "commit3")
    attempts = json.loads(next(tmp_path.rglob("attempts.json")).read_text())
    assert record.seconds == round(attempts["seconds"], 1)


def test_a_failed_study_does_not_hide_those_that_finish(tmp_path, monkeypatch):
    interrupted(monkeypatch, lambda out: None)
    studies = [Study(name, "", 1, (f"{name} --out {{out}}",), True) for name in ("a", "b")]
    found = run_study.run_all(studies, tmp_path, None, 1)
    assert next(found).study == "b"
    with pytest.raises(ChildProcessError, match="a failed"):
        next(found)


def test_nothing_runs_if_a_study_lacks_its_data(tmp_path, monkeypatch):
    called = interrupted(monkeypatch, lambda out: None)
    studies = [Study("a", "", 1, ("a --out x",)), Study("b", "", 1, ("b --data-dir {data}",))]
    with pytest.raises(ValueError, match="data is None, but the study b"):
        next(run_study.run_all(studies, tmp_path, None, 1))
    assert not called


def test_a_study_that_reads_files_asks_for_their_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(run_study, "check_commit", lambda: "0123456")
    study = Study("small", "", 1, ("losses --data-dir {data} --out {out}",))
    with pytest.raises(ValueError, match="give --data FOLDER"):
        run_study.run(study, tmp_path, None)


def test_a_study_on_a_gpu_needs_one_and_names_it(tmp_path, monkeypatch):
    called = []

    def call(command, *, env, **settings):
        called.append((command[2].removeprefix("experiments."), env))
        return subprocess.CompletedProcess(command, 0, stdout='{"loss": 1.5}\n')

    monkeypatch.setattr(run_study, "check_commit", lambda: "0123456")
    study = Study("card", "", 1, ("a --out x", "b --out x", "c --out x"), on_gpu=True, num_jobs=2)
    monkeypatch.setattr(host.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="needs a GPU"):
        run_study.run(study, tmp_path, None)
    monkeypatch.setattr(run_study, "gpu_name", lambda: "a card, driver 1")
    monkeypatch.setattr(run_study, "num_cores", lambda: 8)
    monkeypatch.setattr(run_study.subprocess, "run", call)
    record = run_study.run(study, tmp_path, None)
    assert record.device == "a card, driver 1"
    assert called[0][0] == "a"
    assert {env["XLA_PYTHON_CLIENT_PREALLOCATE"] for _, env in called} == {"false"}
    assert {env["OMP_NUM_THREADS"] for _, env in called} == {"4"}
    assert record.commands == [f"python -m experiments.{name} --out x" for name in "abc"]
    monkeypatch.setattr(run_study, "gpu_name", lambda: "another card, driver 1")
    more = run_study.run(study._replace(commands=(*study.commands, "d --out x")), tmp_path, None)
    assert more.device == "a card, driver 1 and another card, driver 1"


def test_a_run_without_names_leaves_out_studies_on_a_gpu(monkeypatch):
    chosen = []
    monkeypatch.setattr(program, "run_all", lambda studies, *_: chosen.extend(studies) or [])
    monkeypatch.setattr(pages, "write", lambda: [])
    main(ResultsConfig(action="run"))
    assert [study.name for study in chosen] == [s.name for s in STUDIES.values() if not s.on_gpu]
    chosen.clear()
    main(ResultsConfig(action="run", studies=("gpu", "small", "gpu")))
    assert [study.name for study in chosen] == ["gpu", "small"]


def test_the_gpu_is_named_with_its_driver(monkeypatch):
    printed = "NVIDIA H100, 580.1\nNVIDIA H100, 580.1\n"
    monkeypatch.setattr(host.shutil, "which", lambda name: name)
    monkeypatch.setattr(
        host.subprocess, "run", lambda *x, **y: subprocess.CompletedProcess(x, 0, stdout=printed)
    )
    assert host.gpu_name() == "NVIDIA H100, driver 580.1"


def test_sources_without_a_commit_are_refused(monkeypatch):
    monkeypatch.setattr(records, "git", lambda *arguments: " M mmvae_jax/model.py")
    with pytest.raises(ValueError, match=r"mmvae_jax/model\.py\): commit them"):
        records.check_commit()
    monkeypatch.setattr(records, "git", lambda *arguments: "")  # as it is where git fails
    with pytest.raises(ValueError, match="has no commit"):
        records.check_commit()


def test_records_of_this_package_have_no_changes_since(monkeypatch):
    counts = {"aaaaaaa": "0", "bbbbbbb": "3", "ccccccc": ""}

    def git(*arguments):
        assert arguments[3:] == ("--", "mmvae_jax")
        return counts[arguments[2].removesuffix("..HEAD")]

    monkeypatch.setattr(records, "git", git)
    assert records.num_changes_since("aaaaaaa") == 0
    assert records.num_changes_since("aaaaaaa, bbbbbbb") == 3
    assert records.num_changes_since("bbbbbbb, ccccccc") is None


def test_a_run_keeps_the_metrics_of_tables():
    metrics = {
        **{"experiment": "digits", "preset": "default", "steps": 3, "config": {"K": 1}},
        **{"test_bound": 1.5, "latent_probe": 0.5, "joint_coherence_macro": 0.1},
        **{"log_likelihood": {"joint": {"mean": -2.0}}, "device": "cpu", "figures": []},
    }
    row = run_study._of_run(metrics)
    assert row["log_likelihood/joint/mean"] == -2.0
    assert row["joint_coherence_macro"] == 0.1
    assert "device" not in row


def test_the_list_has_every_study(capsys):
    main(ResultsConfig(action="list"))
    text = capsys.readouterr().out
    assert text.strip() == listing()
    assert all(f"\n{name} " in text for name in STUDIES)


def test_divergence_is_a_loss_above_its_start():
    assert not diverged({"first_loss": 5.0, "last_loss": 4.0})
    assert diverged({"first_loss": 5.0, "last_loss": 6.0})
    assert diverged({"first_loss": 5.0, "last_loss": float("nan")})


def test_unknown_studies_are_named():
    with pytest.raises(ValueError, match="studies is 'none'"):
        ResultsConfig(action="run", studies=("none",))
    with pytest.raises(ValueError, match="jobs is 0"):
        ResultsConfig(action="run", jobs=0)


def test_a_missing_record_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="results run losses"):
        records.read("losses")
    (tmp_path / "losses.json").write_text(json.dumps({"study": "losses"}))
    with pytest.raises(TypeError):
        records.read("losses")
