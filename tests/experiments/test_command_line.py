"""The command lines of all programs: help texts, presets, and errors."""

import re
from pathlib import Path

import pytest
import tyro

from experiments.benchmark.config import BenchmarkConfig
from experiments.certificates import CertificatesConfig
from experiments.class_sums import ClassSumsConfig
from experiments.command_line import run_command
from experiments.cub import CUBConfig
from experiments.digits import DigitsConfig
from experiments.estimator_noise import EstimatorNoiseConfig
from experiments.exactness import ExactnessConfig
from experiments.experts_drawn import ExpertsDrawnConfig
from experiments.initialisation import InitialisationConfig, TableConfig
from experiments.losses import LossesConfig
from experiments.make_polymnist import MakePolyMNISTConfig
from experiments.mnist_pairs import MNISTPairsConfig
from experiments.mnist_scenes import MNISTScenesConfig
from experiments.mnist_svhn import PRESETS, MNISTSVHNConfig
from experiments.mnist_svhn_text import MNISTSVHNTextConfig
from experiments.omics.__main__ import OmicsConfig
from experiments.polymnist import PolyMNISTConfig
from experiments.pretrained.__main__ import PretrainedConfig
from experiments.pretrained.weights import WeightsConfig
from experiments.prior_share import PriorShareConfig
from experiments.report import ReportConfig
from experiments.results.__main__ import ResultsConfig
from experiments.scaling import ScalingConfig
from experiments.stability import StabilityConfig, TumoursConfig
from experiments.startup import StartupConfig
from experiments.train_classifiers import ClassifiersConfig
from experiments.views import ViewsConfig

ROOT = Path(__file__).parents[2]
#: Settings of all programs, and those that programs build on them.
ALL = [
    BenchmarkConfig,
    CertificatesConfig,
    ClassSumsConfig,
    CUBConfig,
    DigitsConfig,
    EstimatorNoiseConfig,
    ExactnessConfig,
    ExpertsDrawnConfig,
    InitialisationConfig,
    TableConfig,
    LossesConfig,
    MakePolyMNISTConfig,
    MNISTPairsConfig,
    MNISTScenesConfig,
    MNISTSVHNConfig,
    MNISTSVHNTextConfig,
    OmicsConfig,
    PolyMNISTConfig,
    PretrainedConfig,
    WeightsConfig,
    PriorShareConfig,
    ReportConfig,
    ResultsConfig,
    ScalingConfig,
    StabilityConfig,
    TumoursConfig,
    StartupConfig,
    ClassifiersConfig,
    ViewsConfig,
]


def test_all_settings_are_listed():
    files = (ROOT / "experiments").rglob("*.py")
    found = [re.findall(r"^class (\w+Config)\b", path.read_text(), re.MULTILINE) for path in files]
    assert sorted(name for each in found for name in each) == sorted(c.__name__ for c in ALL)


@pytest.mark.parametrize("settings", ALL)
def test_help_texts_have_no_markup(settings, capsys):
    with pytest.raises(SystemExit):
        tyro.cli(settings, args=["--help"])
    assert "`" not in capsys.readouterr().out


def test_flags_replace_values_of_a_preset(monkeypatch):
    monkeypatch.setattr("sys.argv", ["mnist_svhn", "small", "--K", "7"])
    found = []
    run_command(found.append, PRESETS, "experiments.mnist_svhn")
    assert [(config.preset, config.K, config.pairings) for config in found] == [("small", 7, 5)]


def test_usage_is_the_command_to_type(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["report", "--help"])
    with pytest.raises(SystemExit):
        run_command(print, ReportConfig, "experiments.report")
    assert "usage: python -m experiments.report " in capsys.readouterr().out


def test_wrong_values_are_named_by_the_parser(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["digits", "--missing", "1.5"])
    with pytest.raises(SystemExit):
        run_command(print, DigitsConfig, "experiments.digits")
    assert "missing is 1.5" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, ImportError, FloatingPointError])
def test_user_errors_end_with_a_message(error, monkeypatch):
    def main(config):
        raise error("K is 0")

    monkeypatch.setattr("sys.argv", ["exactness"])
    with pytest.raises(SystemExit, match=r"^error: K is 0$"):
        run_command(main, ExactnessConfig, "experiments.exactness")


def test_other_errors_keep_their_traceback(monkeypatch):
    def main(config):
        raise TypeError("a bug")

    monkeypatch.setattr("sys.argv", ["exactness"])
    with pytest.raises(TypeError, match="a bug"):
        run_command(main, ExactnessConfig, "experiments.exactness")
