"""AnnData and MuData, as objects and in files."""

import warnings

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import mmvae_jax as mm
from mmvae_jax.data import read_rows

# Of anndata and mudata about pandas, and about their own next versions.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

CELLS = ["c0", "c1", "c2", "c3"]
COUNTS = np.array([[0, 2, 0], [1, 0, 0], [0, 0, 5], [3, 0, 1]], np.float32)
PROTEINS = np.arange(6.0).reshape(3, 2)
ORDER = ["c3", "c0", "c9"]  # of the cells with proteins
PCA = np.arange(8.0).reshape(4, 2)


@pytest.fixture(scope="module")
def rna() -> anndata.AnnData:
    data = anndata.AnnData(
        scipy.sparse.csr_matrix(COUNTS),
        obs=pd.DataFrame({"celltype": ["T", "B", "T", None], "age": [1, 2, 3, 4]}, index=CELLS),
        var=pd.DataFrame(index=["CD3", "CD19", "CD8"]),
    )
    data.layers["raw"] = 10 * COUNTS
    data.obsm["X_pca"] = PCA
    data.obsm["scores"] = pd.DataFrame({"s": PCA[:, 0], "t": PCA[:, 1]}, index=CELLS)
    return data


@pytest.fixture(scope="module")
def both(rna) -> mudata.MuData:
    protein = anndata.AnnData(
        PROTEINS, obs=pd.DataFrame(index=ORDER), var=pd.DataFrame(index=["P1", "P2"])
    )
    with warnings.catch_warnings(action="ignore"):
        return mudata.MuData({"rna": rna, "protein": protein})


@pytest.fixture(params=["object", "file"])
def cells(request, rna, tmp_path):
    """An AnnData, or the path of its file."""
    if request.param == "object":
        return rna
    rna.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


@pytest.fixture(params=["object", "file"])
def pair(request, both, tmp_path):
    """A MuData, or the path of its file."""
    if request.param == "object":
        return both
    both.write_h5mu(tmp_path / "pair.h5mu")
    return tmp_path / "pair.h5mu"


def test_the_matrix_of_an_anndata(cells):
    tables = mm.read_tables(cells)
    assert tables.index.tolist() == CELLS
    (found,) = tables.modalities.values()
    assert found.features == ("CD3", "CD19", "CD8")
    np.testing.assert_array_equal(found.values[np.array([3, 0, 3])], COUNTS[[3, 0, 3]])
    assert (found.low, found.high, found.are_whole) == (0, 5, True)
    named = mm.read_tables({"rna": cells}).modalities["rna"]
    assert named.crc32 == found.crc32


def test_elements_on_request(cells):
    requests = ("X", "layers/raw", "obsm/X_pca", "obsm/scores", "obs/celltype", "obs/age")
    by_name = mm.read_tables(cells, modalities=requests).modalities
    names = ["X", "raw", "X_pca", "scores", "celltype", "age"]
    assert list(by_name) == names
    by_pair = mm.read_tables(
        {name: (cells, request) for name, request in zip(names, requests, strict=True)}
    ).modalities
    for found in (by_name, by_pair):
        np.testing.assert_array_equal(found["raw"].values[:], 10 * COUNTS)
        np.testing.assert_array_equal(found["X_pca"].values[:], PCA)
        np.testing.assert_array_equal(found["scores"].values[:], PCA)
        assert found["raw"].features == ("CD3", "CD19", "CD8")
        assert (found["X_pca"].features, found["scores"].features) == (None, ("s", "t"))
        assert found["celltype"].classes == ("B", "T")
        assert found["celltype"].values.tolist() == [1, 0, 1, -1]
        assert found["celltype"].observed.tolist() == [True, True, True, False]
        assert found["age"].values.tolist() == [1, 2, 3, 4]


def test_modalities_of_a_mudata_are_matched(pair):
    tables = mm.read_tables(pair)
    assert tables.index.tolist() == [*CELLS, "c9"]
    rna, protein = (tables.modalities[name] for name in ("rna", "protein"))
    assert rna.observed.tolist() == [True] * 4 + [False]
    assert protein.observed.tolist() == [True, False, False, True, True]
    rows = np.array([4, 0, 3])
    np.testing.assert_array_equal(protein.values[rows], PROTEINS[[2, 1, 0]])
    np.testing.assert_array_equal(rna.values[rows[1:]], COUNTS[[0, 3]])
    assert (protein.features, protein.high) == (("P1", "P2"), 5)
    one = mm.read_tables(pair, modalities=("protein", "rna/obsm/X_pca", "rna/obs/celltype"))
    assert list(one.modalities) == ["protein", "X_pca", "celltype"]
    assert one.index.tolist() == ["c3", "c0", "c9", "c1", "c2"]
    np.testing.assert_array_equal(one.modalities["X_pca"].values[:2], PCA[[3, 0]])


def test_matrices_of_files_stay_there(rna, tmp_path):
    for name, matrix in (("csr", rna.X), ("csc", rna.X.tocsc()), ("dense", COUNTS)):
        data = rna.copy()
        data.X = matrix
        data.write_h5ad(tmp_path / f"{name}.h5ad")
        values = mm.read_tables(tmp_path / f"{name}.h5ad").modalities["X"].values
        np.testing.assert_array_equal(read_rows(values, np.array([2, 1])), COUNTS[[2, 1]])
        assert not isinstance(values, np.ndarray)
        assert name == "dense" or values.matrix.format == "csr"
    backed = anndata.read_h5ad(tmp_path / "csr.h5ad", backed="r")
    values = mm.read_tables(backed).modalities["X"].values
    np.testing.assert_array_equal(values[1:3], COUNTS[1:3])
    assert isinstance(mm.read_tables(tmp_path / "dense.h5ad").modalities["X"].values, h5py.Dataset)


def test_cells_without_names_match_by_position():
    cells = anndata.AnnData(COUNTS)
    tables = mm.read_tables({"rna": cells, "kind": np.array(["a", "b", "a", "c"])})
    assert tables.index is None
    assert tables.modalities["rna"].features == ("0", "1", "2")
