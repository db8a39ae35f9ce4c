"""Models on the Hugging Face Hub: against a stand-in, and against the client's signatures."""

import inspect
import shutil
import sys
import types
from pathlib import Path

import pytest
from helpers.saved_models import FILES, assert_same, custom_networks, small_model

from mmvae_jax.saving.pretrained import from_pretrained, push_to_hub, save_pretrained


class Hub(types.ModuleType):
    """Stands in for huggingface_hub: repositories are folders."""

    def __init__(self, root):
        super().__init__("huggingface_hub")
        self.root = root
        self.calls = []

    def create_repo(self, *args, **options):
        self.calls.append(("create_repo", args, options))
        return f"https://hub/{args[0]}"

    def upload_folder(self, **options):
        self.calls.append(("upload_folder", (), options))
        assert {file.name for file in Path(options["folder_path"]).iterdir()} == FILES
        shutil.copytree(options["folder_path"], self.root / options["repo_id"])

    def snapshot_download(self, *args, **options):
        self.calls.append(("snapshot_download", args, options))
        folder = self.root / args[0]
        if not folder.is_dir():
            raise OSError("404: no such repository")
        return str(folder)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub := Hub(tmp_path / "hub"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return hub


def test_push_and_pull(hub, model):
    address = push_to_hub(model, "me/small", metrics={"loss": 1.5}, private=True)
    assert address == "https://hub/me/small"
    assert_same(from_pretrained("me/small", revision="v1", **custom_networks()), model)
    create, upload, download = hub.calls
    assert create == ("create_repo", ("me/small",), {"private": True, "exist_ok": True})
    assert upload[2]["repo_id"] == "me/small"
    assert not Path(upload[2]["folder_path"]).exists()
    patterns = ["config.json", "model.safetensors"]
    assert download[1:] == (("me/small",), {"revision": "v1", "allow_patterns": patterns})
    card = (hub.root / "me/small" / "README.md").read_text()
    assert 'mm.from_pretrained("me/small", encoders={"a": SmallEncoder(...)' in card
    assert "| loss | 1.5 |" in card


def test_folders_come_before_repositories(hub, model):
    save_pretrained(model, "me/small")
    assert_same(from_pretrained("me/small", **custom_networks()), model)
    with pytest.raises(ValueError, match=r"revision is 'v1', but .*me/small is a folder"):
        from_pretrained("me/small", revision="v1", **custom_networks())
    assert not hub.calls


def test_nothing_there(hub):
    for place in ("/nowhere/model", "./model", "a/b/c", "../model", Path("me/small")):
        with pytest.raises(FileNotFoundError, match=r"there is no folder"):
            from_pretrained(place)
    assert not hub.calls
    with pytest.raises(OSError, match="404") as error:
        from_pretrained("me/smal")
    assert "taken for a repository: there is no folder" in error.value.__notes__[0]


def test_nothing_is_pushed_after_an_error(hub, model):
    with pytest.raises(ValueError, match="repo_id is 'small'"):
        push_to_hub(model, "small")
    with pytest.raises(ValueError, match="JSON cannot"):
        push_to_hub(small_model(decoders_dist={"a": lambda decoded, x: 0.0}), "me/small")
    assert not hub.calls


def test_huggingface_hub_is_missing(model, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    message = "needs huggingface_hub"
    with pytest.raises(ImportError, match=message):
        push_to_hub(model, "me/small")
    with pytest.raises(ImportError, match=message) as error:
        from_pretrained("me/small")
    assert "taken for a repository" in error.value.__notes__[0]


def test_the_real_hub_takes_these_arguments(hub, model, monkeypatch):
    push_to_hub(model, "me/small")
    from_pretrained("me/small", **custom_networks())
    monkeypatch.undo()
    real = pytest.importorskip("huggingface_hub")
    for name, args, options in hub.calls:
        inspect.signature(getattr(real, name)).bind(*args, **options)


def test_the_real_hub_finds_its_cache_without_a_network(folder, model, tmp_path, monkeypatch):
    real = pytest.importorskip("huggingface_hub")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(real.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(real.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="cached snapshot") as error:
        from_pretrained("me/small")
    assert "taken for a repository" in error.value.__notes__[0]
    cached, commit = tmp_path / "cache" / "models--me--small", "0" * 40
    shutil.copytree(folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    assert_same(from_pretrained("me/small", **custom_networks()), model)
    with pytest.raises(ValueError, match="me--small") as error:
        from_pretrained("me--small")
    assert "taken for a repository" in error.value.__notes__[0]
