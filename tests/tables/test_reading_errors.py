"""Sources that cannot be read: each error names the field, the value and the fix."""

import re
import sys
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from helpers.cli_data import mmvae

import mmvae_jax as mm

X = np.ones((3, 2))
P, Q = pd.DataFrame(X, index=list("pqr")), pd.DataFrame(X, index=list("qpr"))
TEXT = pd.DataFrame({"gene": [1.0, 2.0, 3.0], "tissue": ["a", "b", "a"]})
DATES = pd.date_range("2020-01-01", periods=3)
HOLE = np.where(np.eye(3, 2) > 0, np.inf, 1.0)

#: A source (or a function of a folder that returns one), options, and the error.
WRONG_VALUES = {
    "one frame": (P, {}, "source is a DataFrame: give a dict of modalities, a file, a folder"),
    "one array": (X, {}, "source is a ndarray: give a dict"),
    "nothing": ({}, {}, "source holds no modalities: give one array or file for each"),
    "only labels": ({"labels": [1, 2]}, {}, "source holds no modalities"),
    "a key that is no name": ({3: X}, {}, "source has the key 3: give names"),
    "scalar": ({"x": 3.0}, {}, "source['x'] is a float: give an array, a frame or a file"),
    "dict in dict": ({"x": {"y": X}}, {}, "source['x'] is a dict: give an array"),
    "scalar text": ({"x": np.array("a")}, {}, "source['x'] is an array of <U1: convert it"),
    "scalar array": ({"x": np.array(1.0)}, {}, "source['x'] is a scalar: give one row"),
    "no columns": ({"x": np.ones((3, 0))}, {}, "source['x'] has shape (3, 0): give at least one"),
    "no rows": ({"x": P[:0]}, {}, "source['x'] has shape (0, 2): give at least one value"),
    "ragged": ({"x": [[1.0], [1.0, 2.0]]}, {}, "source['x'] is a ragged list: give rows of one"),
    "dates": ({"x": DATES.to_numpy()}, {}, "source['x'] is an array of datetime64"),
    "frame of dates": (
        {"x": pd.DataFrame({"day": DATES})}, {},
        "source['x'] has the column 'day' of datetime64[",
    ),
    "complex": ({"x": X + 1j}, {}, "source['x'] is an array of complex128"),
    "complex column": ({"x": pd.Series([1j], name="z")}, {}, "has the column 'z' of complex128"),
    "complex sparse": ({"x": scipy.sparse.csr_matrix(X * 1j)}, {}, "source['x'] is sparse complex"),
    "text among numbers": ({"x": [1, "a"]}, {}, "source['x'] holds 'a', of type str: give numbers"),
    "objects": (
        {"x": pd.Series([1.0, DATES[0]], name="x", dtype=object)}, {},
        "column 'x' of source['x'] holds Timestamp",
    ),
    "text of two columns": (
        {"x": np.full((3, 2), "a")}, {},
        "source['x'] is text of shape (3, 2): give each column as its own modality",
    ),
    "a text column": (
        {"x": TEXT.assign(tissue=["a", "b", "c"])}, {},
        "has the text column 'tissue' among 2 columns, with a different text in each row: make it",
    ),
    "two indices": (
        {"x": P.set_index([P.index, P.index])}, {},
        "source['x'] has a MultiIndex: flatten it, frame.reset_index()",
    ),
    "a row without name": (
        {"x": P.set_axis(["p", None, "r"])}, {}, "source['x'] has no name in row 1 of its index",
    ),
    "infinity": ({"x": HOLE}, {}, "source['x']: row 0 is inf in column 0: give finite numbers"),
    "infinity by name": (
        {"x": pd.DataFrame(-HOLE[::-1], list("pqr"), ["a", "b"])}, {},
        "source['x']: row 1 ('q') is -inf in column 'b'",
    ),
    "index_col": ({"x": TEXT}, {"index_col": "id"}, "index_col is 'id': source['x'] has the colum"),
    "only names": (
        {"x": TEXT[["tissue"]]}, {"index_col": 0},
        "source['x'] has no columns besides the names of its rows",
    ),
    "twice in the index": (
        {"x": P.set_axis(["p", "q", "p"]), "y": P}, {},
        "source['x'] has 2 rows named 'p' in its index: give every row its own name",
    ),
    "lengths": ({"x": X, "y": [1, 2]}, {}, "source['x'] has 3 rows, source['y'] has 2: give each"),
    "lengths beside names": ({"x": P, "y": [1, 2]}, {}, "source['x'] has 3 rows, source['y'] has"),
    "no names beside other orders": (
        {"x": P, "y": Q, "z": X}, {},
        "source['z'] has no names of rows, and those of source['x'] and source['y'] differ",
    ),
    "labels beside other orders": (
        {"x": P, "y": Q, "labels": [1, 2, 3]}, {}, "source['labels'] has no names of rows",
    ),
    "labels": ({"x": X, "labels": [0.5, 1, 1]}, {}, "source['labels'] is float64[3]: give one int"),
    "labels in columns": ({"x": X, "labels": np.eye(3, dtype=int)}, {}, "labels'] is int64[3, 3]"),
    "mask of another name": (
        {"image": X, "mask/imag": np.ones(3, bool)}, {},
        "source['mask/imag'] has the unknown modalities ['imag']: known are ['image']; did you "
        "mean 'image'?",
    ),
    "mask of numbers": ({"x": X, "mask/x": [0, 1, 1]}, {}, "source['mask/x'] is int64[3]: give"),
    "mask of another length": (
        {"x": X, "mask/x": np.ones(2, bool)}, {},
        "source['mask/x'] is bool[2]: give one boolean for each of the 3 rows of 'x'",
    ),
    "unknown modality": (
        {"rna": X, "protein": X}, {"modalities": ("proteins",)},
        "modalities has the unknown modalities ['proteins']: known are ['rna', 'protein']; did "
        "you mean 'protein'?",
    ),
    "no names": ({"rna": X}, {"modalities": ()}, "modalities is empty: give the name of one"),
    "no matrix": (
        anndata.AnnData(obs=pd.DataFrame({"kind": ["a"]}, ["p"])), {},
        "source holds no modalities: give one array or file for each, or choose some of ['obs/kin",
    ),
    "one name": ({"rna": X}, {"modalities": "rna"}, "modalities is 'rna': give a tuple of names"),
    "a name twice": (
        anndata.AnnData(X, layers={"X": X}), {"modalities": ("X", "layers/X")},
        "modalities names 'X' twice: give a dict of modalities",
    ),
    "element": (
        {"x": (anndata.AnnData(X), "obsm/pca")}, {},
        "source['x'] is 'obsm/pca': choose one of ['X']",
    ),
    "weights": (mm.Batch({"x": X}, weight=np.ones(3)), {}, "source.weight is given: tables have"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_wrong_values_are_named(name):
    source, options, message = WRONG_VALUES[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        mm.read_tables(source, **options)


def write_npz(folder: Path) -> Path:
    np.savez(folder / "x.npz", x=X)
    return folder / "x.npz"


def write_h5(folder: Path) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        file["x"] = np.zeros((300, 300))
    return folder / "x.h5"


def write_h5ad(folder: Path) -> Path:
    anndata.AnnData(X).write_h5ad(folder / "x.h5ad")
    return folder / "x.h5ad"


def write_npy(folder: Path) -> Path:
    np.save(folder / "x.npy", X)
    return folder / "x.npy"


def write_parquet(folder: Path) -> Path:
    P.rename(columns=str).to_parquet(folder / "x.parquet")
    return folder / "x.parquet"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("write", [write_npz, write_h5, write_h5ad, write_npy, write_parquet])
def test_damaged_files_are_named(write, tmp_path):
    file = write(tmp_path)
    content = file.read_bytes()
    for part in (content[: len(content) // 2], content[:8] + bytes(len(content))):
        file.write_bytes(part)
        with pytest.raises(ValueError, match=re.escape(str(file))):
            mm.read_tables(file)


#: Content of the file x.csv, and the error.
WRONG_CSV = {
    "empty": ("", "x.csv cannot be read: No columns to parse from file"),
    "ragged": ("a,b\n1,2\n3,4,5\n6,7,8,9\n", "x.csv cannot be read: Error tokenizing data"),
    "semicolons": ("a;b\n1;2\n", "x.csv has one column, 'a;b': separate columns by commas"),
    "no header": ("0.5,1.5\n2,3\n", "x.csv begins with the row ['0.5', '1.5']: its first row has"),
    "names, no header": ("p,0.5,1.5\nq,2,3\n", "x.csv begins with the row ['p', '0.5', '1.5']"),
    "dates": (
        "day,a\n2020-01-01,1\n2020-01-01,2\n",
        "among 2 columns, with dates: make it",
    ),
}


@pytest.mark.parametrize(("text", "message"), WRONG_CSV.values(), ids=WRONG_CSV)
def test_wrong_csv_is_named(text, message, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        mm.read_tables(tmp_path)


def test_wrong_places_are_named(tmp_path):
    places = {
        "x.xlsx": "has the suffix '.xlsx': give a folder, or .csv, ",
        "notes.txt": "has the suffix '.txt'",
        "x.npz": "x.npz is no .npz file: write one with np.savez",
    }
    for name, message in places.items():
        (tmp_path / name).write_text("a")
        with pytest.raises(ValueError, match=re.escape(message)):
            mm.read_tables(tmp_path / name)
    (tmp_path / "._x.npy").write_text("a")
    with pytest.raises(ValueError, match=r"has no files of modalities: give one .* \.csv,"):
        mm.read_tables(tmp_path)
    with pytest.raises(ValueError, match=r"x in .* has the suffix '\.npz': .* \(file, name\)"):
        mm.read_tables({"x": tmp_path / "x.npz"})
    with pytest.raises(FileNotFoundError, match="no_folder does not exist: give a folder"):
        mm.read_tables(tmp_path / "no_folder")
    with pytest.raises(FileNotFoundError, match=r"no\.csv does not exist: give \.csv"):
        mm.read_tables({"x": tmp_path / "no.csv"})
    with pytest.raises(ValueError, match="source is 's3://bucket/x', an address"):
        mm.read_tables("s3://bucket/x")
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(ValueError, match="is a folder: give a file of one modality"):
        mm.read_tables({"x": tmp_path})
    (tmp_path / "x.csv").write_text("a\n1\n")
    with pytest.raises(ValueError, match=r"has x\.csv and x\.npy: keep one of them"):
        mm.read_tables(tmp_path)
    with pytest.raises(ValueError, match=r"source\['y'\] has the unknown .* known are \['x'\]"):
        mm.read_tables({"y": (write_h5(tmp_path), "y")})


#: Sources that need a package, the package, and the extra that installs it.
NEEDS = {
    "csv": ({"x": "x.csv"}, "pandas", "tables"),
    "parquet": ({"x": "x.parquet"}, "pyarrow", "tables"),
    "h5": ("x.h5", "h5py", "tables"),
    "h5ad": ("x.h5ad", "anndata", "anndata"),
}


@pytest.mark.parametrize(("source", "package", "extra"), NEEDS.values(), ids=NEEDS)
def test_missing_packages_are_named(source, package, extra, tmp_path, monkeypatch):
    for name in ("x.csv", "x.parquet", "x.h5", "x.h5ad"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"reading x\.\w+ needs {package}: pip install 'mmvae_jax\[{extra}\]'"
    with pytest.raises(ImportError, match=message):
        mm.read_tables(source)


def test_the_command_line_names_damaged_tables(tmp_path, capsys):
    (tmp_path / "x.csv").write_text("a;b\n1;2\n")
    assert mmvae("train", tmp_path, "--out", tmp_path / "run") == 1
    assert "error: " in (printed := capsys.readouterr().err)
    assert "x.csv has one column" in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_line_trains_on_a_folder_of_csv(tmp_path):
    """Rows in another order in each file; text classes; predictions of the class."""
    rng = np.random.default_rng(0)
    names = [f"p{number}" for number in range(60)]
    kind = pd.Series(rng.choice(["lung", "brain"], 60), index=names)
    shift = np.where(kind == "lung", 2.0, -2.0)[:, None]
    (tmp_path / "data").mkdir()
    for modality, size in (("rna", 5), ("protein", 3)):
        values = pd.DataFrame(rng.normal(shift, size=(60, size)), index=names)
        values.columns = [f"g{number}" for number in range(size)]
        values.sample(frac=1, random_state=size).to_csv(tmp_path / "data" / f"{modality}.csv")
    kind[:50].to_csv(tmp_path / "data" / "kind.csv", header=["kind"])
    run, found = tmp_path / "run", tmp_path / "found.npz"
    options = "--num-steps 200 --latent-dim 2 --K 2 --hidden 16 --quiet"
    assert mmvae("train", tmp_path / "data", "--out", run, options) == 0
    args = "--given rna protein --generate kind --out"
    assert mmvae("predict", run, tmp_path / "data", args, found) == 0
    tables = mm.read_tables(tmp_path / "data")
    with np.load(found) as archive:
        assert np.mean(archive["kind"] == kind[tables.index]) > 0.9
