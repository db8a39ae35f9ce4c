"""Places where files are found, downloads, and errors."""

import functools
import hashlib
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mmvae_jax.data.datasets.files import (
    ENVIRONMENT,
    PublishedFile,
    data_folder,
    locate,
    locate_folder,
)

CONTENT = b"what was published"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Quiet(SimpleHTTPRequestHandler):
    def log_request(self, *_) -> None:
        self.server.asked.append(self.path)

    def log_message(self, *_) -> None:
        """Prints nothing, because the client reports errors."""


@pytest.fixture
def site(tmp_path) -> Iterator[ThreadingHTTPServer]:
    """A server of a folder that holds the file, and a damaged one."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "values.gz").write_bytes(CONTENT)
    (folder / "damaged.gz").write_bytes(CONTENT[:-1])
    handler = functools.partial(Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_folder(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    pooch = pytest.importorskip("pooch")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "mmvae_jax"


def published(*urls: str, checksum: str = MD5) -> PublishedFile:
    return PublishedFile(
        path="kind/values.gz", others=("Kind/raw/values.gz",), urls=urls, checksum=checksum
    )


def url(site: ThreadingHTTPServer, name: str) -> str:
    return f"http://127.0.0.1:{site.server_port}/{name}"


@pytest.mark.parametrize(
    "place", ["kind/values.gz", "kind/values", "Kind/raw/values.gz", "Kind/raw/values"]
)
def test_a_named_folder_is_searched_for_all_places(tmp_path, place):
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_bytes(b"any content")
    assert locate(published("http://nowhere.invalid/values.gz"), tmp_path) == tmp_path / place


def test_the_argument_goes_before_the_environment(tmp_path, monkeypatch):
    for name in ("argument", "environment"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "environment"))
    assert data_folder() == tmp_path / "environment"
    assert data_folder(tmp_path / "argument") == tmp_path / "argument"
    monkeypatch.delenv(ENVIRONMENT)
    assert data_folder() is None


def test_a_named_folder_without_the_file_says_what_to_do_and_downloads_nothing(tmp_path, site):
    address = url(site, "values.gz")
    with pytest.raises(FileNotFoundError) as error:
        locate(published(address), tmp_path)
    for part in ("lacks kind/values.gz", address, MD5, str(tmp_path / "kind/values.gz")):
        assert part in str(error.value)
    assert not site.asked


def test_a_download_is_checked_and_kept(site, cache):
    file = published(url(site, "values.gz"))
    assert locate(file) == cache / "kind/values.gz"
    assert locate(file).read_bytes() == CONTENT
    assert site.asked == ["/values.gz"]


def test_the_next_address_is_tried(site, cache):
    file = published(url(site, "absent.gz"), url(site, "damaged.gz"), url(site, "values.gz"))
    assert locate(file).read_bytes() == CONTENT
    assert site.asked == ["/absent.gz", "/damaged.gz", "/values.gz"]


def test_a_damaged_download_is_refused_and_not_kept(site, cache):
    with pytest.raises(FileNotFoundError, match=r"no download gave kind/values\.gz") as error:
        locate(published(url(site, "damaged.gz")))
    assert "set $MMVAE_DATA" in str(error.value)
    assert not (cache / "kind/values.gz").exists()


def test_without_pooch_the_error_says_what_to_download(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"data_dir is None.*http://a\.b/values\.gz"):
        locate(published("http://a.b/values.gz"))


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_folder_that_is_not_there_is_named(tmp_path, monkeypatch, by):
    absent = tmp_path / "absent"
    if by == "environment":
        monkeypatch.setenv(ENVIRONMENT, str(absent))
    with pytest.raises(FileNotFoundError, match=r"(data_dir|\$MMVAE_DATA) is .*absent"):
        data_folder(absent if by == "argument" else None)


def test_folders_are_searched_in_order(tmp_path):
    (tmp_path / "second").mkdir()
    find = functools.partial(
        locate_folder, "Data", ["first", "second"], data_dir=tmp_path, source="unzip data.zip"
    )
    assert find() == tmp_path / "second"
    (tmp_path / "first").mkdir()
    assert find() == tmp_path / "first"


@pytest.mark.parametrize("named", [True, False])
def test_a_missing_folder_says_where_to_get_it_and_where_to_put_it(tmp_path, named):
    with pytest.raises(FileNotFoundError, match=r"unzip data\.zip"):
        locate_folder(
            "Data", ["first"], data_dir=tmp_path if named else None, source="unzip data.zip"
        )
