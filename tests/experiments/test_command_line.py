"""The command lines of all programs: help texts, presets, and errors."""

import pytest
import tyro

from experiments.command_line import run_command
from experiments.cub import CUBConfig
from experiments.digits import DigitsConfig
from experiments.exactness import ExactnessConfig
from experiments.losses import LossesConfig
from experiments.make_polymnist import MakePolyMNISTConfig
from experiments.mnist_pairs import MNISTPairsConfig
from experiments.mnist_svhn import PRESETS, MNISTSVHNConfig
from experiments.mnist_svhn_text import MNISTSVHNTextConfig
from experiments.polymnist import PolyMNISTConfig
from experiments.report import ReportConfig
from experiments.scaling import ScalingConfig
from experiments.train_classifiers import ClassifiersConfig

ALL = [
    CUBConfig,
    DigitsConfig,
    ExactnessConfig,
    LossesConfig,
    MakePolyMNISTConfig,
    MNISTPairsConfig,
    MNISTSVHNConfig,
    MNISTSVHNTextConfig,
    PolyMNISTConfig,
    ReportConfig,
    ScalingConfig,
    ClassifiersConfig,
]


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
