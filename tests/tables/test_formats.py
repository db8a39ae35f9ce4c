"""Values, names of columns and classes of every source that is no AnnData, by hand."""

import h5py
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars
import pytest
import scipy.sparse

import mmvae_jax as mm
from mmvae_jax.data import LazyColumn

GRID = np.array([[0.5, -1.0], [2.0, 3.5], [-4.0, 0.0]])
FRAME = pd.DataFrame(GRID, columns=["a", "b"])
NAMED = FRAME.set_axis(["p", "q", "r"])


def table(source, **options) -> mm.Tables:
    """Returns the only modality of a source, or a value of a dict."""
    source = source if isinstance(source, dict) else {"x": source}
    (found,) = mm.read_tables(source, **options).modalities.values()
    return found


def sparse_frame() -> pd.DataFrame:
    return pd.DataFrame({"a": pd.arrays.SparseArray(GRID[:, 0]), "b": GRID[:, 1]})


ARRAYS = {
    "numpy": GRID,
    "list": GRID.tolist(),
    "jax": jnp.asarray(GRID, jnp.float32),
    "objects": GRID.astype(object),
    "big endian": GRID.astype(">f8"),
    "extended": GRID.astype(np.longdouble),
    "single": GRID.astype(np.float32),
    "masked array": np.ma.masked_array(GRID, np.zeros((3, 2))),
    "frame": FRAME,
    "named frame": NAMED,
    "frame of pandas' types": FRAME.convert_dtypes(),
    "sparse frame": sparse_frame(),
    "frame of arrow": FRAME.astype("double[pyarrow]"),
    "csr": scipy.sparse.csr_matrix(GRID),
    "csc": scipy.sparse.csc_matrix(GRID),
    "coo array": scipy.sparse.coo_array(GRID),
}


@pytest.mark.parametrize("x", ARRAYS.values(), ids=ARRAYS)
def test_numbers(x):
    found = table(x)
    np.testing.assert_array_equal(found.values[:], GRID)
    assert np.dtype(found.values.dtype).isnative
    assert (found.low, found.high, found.are_whole) == (-4.0, 3.5, False)
    assert found.observed.tolist() == [True] * 3
    assert found.features == (("a", "b") if hasattr(x, "columns") else None)


def test_polars():
    frame = polars.DataFrame({"id": ["p", "q", "r"], "a": GRID[:, 0], "b": GRID[:, 1]})
    for x in (frame, frame.lazy()):
        tables = mm.read_tables({"x": x})
        assert tables.index.tolist() == ["p", "q", "r"]
        np.testing.assert_array_equal(tables.modalities["x"].values, GRID)
    kind = table(polars.Series("kind", ["b", None, "a"]))
    assert (kind.values.tolist(), kind.classes) == ([1, -1, 0], ("a", "b"))


KINDS = {
    "text array": (np.array(["lung", "brain", "lung"]), [1, 0, 1]),
    "list of text": (["lung", "brain", "lung"], [1, 0, 1]),
    "list with None": (["lung", None, "brain"], [1, -1, 0]),
    "series": (pd.Series(["brain", None, "lung"]), [0, -1, 1]),
    "pandas' strings": (pd.Series(["lung", pd.NA, "brain"], dtype="string"), [1, -1, 0]),
    "categories": (pd.Series(["lung", "brain", "lung"], dtype="category"), [1, 0, 1]),
    "array of categories": (pd.Categorical(["lung", np.nan, "brain"]), [1, -1, 0]),
    "column of a frame": (pd.DataFrame({"tissue": ["lung", "brain", "lung"]}), [1, 0, 1]),
    "array of one column": (np.array([["lung"], ["brain"], ["lung"]]), [1, 0, 1]),
}


@pytest.mark.parametrize(("x", "codes"), KINDS.values(), ids=KINDS)
def test_text_becomes_classes_in_sorted_order(x, codes):
    found = table(x)
    assert found.classes == ("brain", "lung")
    assert found.values.tolist() == codes
    assert found.observed.tolist() == [code >= 0 for code in codes]
    assert (found.low, found.high) == (0, 1)


def test_types_of_columns():
    """Integers stay integers, booleans booleans; NA is NaN; a column becomes a vector."""
    whole = table(pd.DataFrame({"a": [1, 2], "b": [3, 4]}))
    assert (whole.values.dtype, whole.are_whole) == (np.int64, True)
    assert table(pd.DataFrame({"a": [True, False], "b": [True, True]})).values.dtype == bool
    mixed = table(pd.DataFrame({"a": [True, False], "b": [0.5, 1.5]}))
    np.testing.assert_array_equal(mixed.values, [[1.0, 0.5], [0.0, 1.5]])
    holes = table(pd.DataFrame({"a": pd.array([1, pd.NA], "Int64"), "b": [True, False]}))
    np.testing.assert_array_equal(holes.values, [[1.0, 1.0], [np.nan, 0.0]])
    assert holes.num_missing_entries == 1
    numbers = table(pd.Series([3, 1, 2], dtype="category"))
    assert (numbers.values.tolist(), numbers.classes) == ([3, 1, 2], None)
    assert table(pd.DataFrame({"age": [0.5, 1.0]})).values.shape == (2,)
    assert table([True, None, False]).values.tolist()[::2] == [1.0, 0.0]
    np.testing.assert_array_equal(table([[1, 2], None]).values, [[1, 2], [np.nan, np.nan]])


def test_missing_values_are_counted_and_kept():
    values = np.array([[1.0, np.nan], [np.nan, np.nan], [2.0, 3.0]])
    found = table(values)
    assert found.observed.tolist() == [True, False, True]
    assert (found.num_missing_entries, found.low, found.high, found.are_whole) == (1, 1, 3, True)
    np.testing.assert_array_equal(found.values, values)
    masked = np.ma.masked_array([[1, 2], [3, 4]], [[False, True], [False, False]])
    np.testing.assert_array_equal(table(masked).values, [[1, np.nan], [3, 4]])


FILES = {
    "csv": ("x.csv", lambda file: NAMED.to_csv(file)),
    "tsv": ("x.tsv", lambda file: NAMED.to_csv(file, sep="\t", index_label="id")),
    "compressed": ("x.csv.gz", lambda file: NAMED.to_csv(file)),
    "parquet": ("x.parquet", lambda file: NAMED.to_parquet(file)),
    "parquet of columns": (
        "x.parquet",
        lambda file: NAMED.reset_index(names="id").to_parquet(file, index=False),
    ),
}


@pytest.mark.parametrize(("name", "write"), FILES.values(), ids=FILES)
def test_files_of_frames(name, write, tmp_path):
    write(tmp_path / name)
    for source in ({"x": str(tmp_path / name)}, tmp_path, tmp_path / name):
        tables = mm.read_tables(source)
        assert tables.index.tolist() == ["p", "q", "r"]
        assert list(tables.modalities) == ["x"]
        found = tables.modalities["x"]
        assert found.features == ("a", "b")
        np.testing.assert_array_equal(found.values, GRID)


def test_names_of_rows_in_csv(tmp_path):
    """A written index of numbers, an index without names, and a column that is asked for."""
    file = tmp_path / "x.csv"
    FRAME.to_csv(file)
    tables = mm.read_tables({"x": file})
    assert (tables.index, tables.modalities["x"].features) == (None, ("a", "b"))
    assert table(pd.read_csv(file)).features == ("a", "b")
    file.write_text("a,code\n1,007\n2,008\n")
    for column in ("code", 1, -1):
        tables = mm.read_tables({"x": file}, index_col=column)
        assert tables.index.tolist() == ["007", "008"]
        assert tables.modalities["x"].values.tolist() == [1, 2]
    file.write_text("patient_id, a, b\n1, 2, 3\n2, 4, 5\n")
    with pytest.warns(UserWarning, match="has the column 'patient_id' .* give index_col="):
        assert mm.read_tables({"x": file}).modalities["x"].values.shape == (2, 3)
    tables = mm.read_tables({"x": file}, index_col=0)
    assert (tables.index.tolist(), tables.modalities["x"].features) == (["1", "2"], ("a", "b"))
    file.write_text("tissue\nlung\nbrain\n")  # a single column holds values, not names
    tables = mm.read_tables({"x": file})
    assert (tables.index, tables.modalities["x"].classes) == (None, ("brain", "lung"))


def test_a_folder_of_several_formats(tmp_path):
    np.save(tmp_path / "image.npy", np.arange(12.0).reshape(3, 4))
    FRAME.to_csv(tmp_path / "rna.csv", index=False)
    pd.Series(["b", "a", "b"]).to_csv(tmp_path / "labels.csv", index=False, header=["kind"])
    (tmp_path / "mask").mkdir()
    np.save(tmp_path / "mask" / "rna.npy", np.array([True, False, True]))
    for name in ("._rna.csv", ".DS_Store", ".hidden.npy"):
        (tmp_path / name).write_bytes(b"\0")
    tables = mm.read_tables(tmp_path)
    assert list(tables.modalities) == ["image", "rna"]
    assert tables.modalities["rna"].observed.tolist() == [True, False, True]
    assert (tables.labels.tolist(), tables.label_names) == ([1, 0, 1], ("a", "b"))
    assert isinstance(tables.modalities["image"].values, np.memmap)
    (tmp_path / "notes.txt").write_text("")
    with pytest.warns(UserWarning, match=r"notes\.txt ignored"):
        mm.read_tables(tmp_path)


def test_hdf5_stays_in_the_file(tmp_path):
    names = np.array(["lung", "brain", "lung"], h5py.string_dtype())
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["image"], file["tissue"], file["labels"] = GRID, names, [0, 1, 0]
        file["mask/image"] = [True, True, False]
        file["group/other"] = [1]
        file["version"] = 3
    with h5py.File(tmp_path / "data.h5") as file:
        for source in (tmp_path / "data.h5", file):
            tables = mm.read_tables(source)
            assert set(tables.modalities) == {"image", "tissue"}
            assert isinstance(tables.modalities["image"].values, h5py.Dataset)
            np.testing.assert_array_equal(tables.modalities["image"].values[:], GRID)
            assert tables.modalities["image"].observed.tolist() == [True, True, False]
            assert tables.modalities["tissue"].classes == ("brain", "lung")
            assert tables.labels.tolist() == [0, 1, 0]
        assert table(file["image"]).high == 3.5
    one = mm.read_tables({"x": (tmp_path / "data.h5", "image")}).modalities["x"]
    np.testing.assert_array_equal(one.values[1:], GRID[1:])


def test_sparse_matrices_stay_sparse():
    matrix = scipy.sparse.random_array((40, 30), density=0.1, random_state=0, format="csr")
    found = table(matrix)
    assert isinstance(found.values, LazyColumn)
    rows = np.array([7, 3, 7, 39])
    np.testing.assert_array_equal(found.values[rows], matrix.toarray()[rows])
    assert table(matrix.astype(np.int32)).values.dtype == np.int32
    assert table(matrix.tocsc()).values.matrix.format == "csr"  # by row


def test_data_sets_keep_masks_and_labels():
    arrays = mm.MultimodalArrays(
        {"x": GRID, "y": np.arange(3)},
        labels=np.array([2, 0, 1], np.uint8),
        mask={"x": np.array([True, False, True]), "y": np.ones(3, bool)},
    )
    tables = mm.read_tables(arrays)
    assert tables.modalities["x"].observed.tolist() == [True, False, True]
    assert tables.labels.tolist() == [2, 0, 1]
    entries = np.array([[True, True], [False, True], [False, False]])
    found = mm.read_tables(mm.Batch({"x": GRID}, {"x": entries})).modalities["x"]
    np.testing.assert_array_equal(found.values, [[0.5, -1], [np.nan, 3.5], [np.nan, np.nan]])
    assert found.observed.tolist() == [True, True, False]
    assert mm.read_tables(tables) is tables


def test_modalities_are_chosen_in_order(tmp_path):
    source = {"x": GRID, "y": np.arange(3), "z": "no such file", "labels": [0, 1, 0]}
    tables = mm.read_tables(source, modalities=("y", "x"))  # and z is not read
    assert list(tables.modalities) == ["y", "x"]
    assert tables.labels.tolist() == [0, 1, 0]
    assert list(mm.read_tables(tables, modalities=["x"]).modalities) == ["x"]
    np.savez(tmp_path / "data.npz", x=GRID, y=np.array([None]))
    assert list(mm.read_tables(tmp_path / "data.npz", modalities=["x"]).modalities) == ["x"]


def test_rows_are_taken_with_their_statistics():
    source = {"x": NAMED, "tissue": pd.Series(["a", "b", "a"], NAMED.index), "labels": [4, 5, 6]}
    tables = mm.read_tables(source).take([2, 0])
    assert tables.index.tolist() == ["r", "p"]
    assert tables.labels.tolist() == [6, 4]
    found = tables.modalities["x"]
    np.testing.assert_array_equal(found.values, GRID[[2, 0]])
    assert (found.low, found.high, found.features) == (-4.0, 0.5, ("a", "b"))
    assert tables.modalities["tissue"].classes == ("a", "b")


def test_a_description_has_a_line_for_each_modality():
    values = np.where(np.eye(3, 5) > 0, np.nan, 1.5)
    frame = pd.DataFrame(values, index=["p", "q", "r"], columns=list("abcde"))
    tissue = pd.Series(["lung", "brain"], index=["p", "r"])
    assert mm.read_tables({"rna": frame, "tissue": tissue}).describe().splitlines() == [
        "source: 3 rows, matched by name",
        "  rna                  float64[5], all rows, 3 missing values, a, b, c, d, ...",
        "  tissue               int64[], 2 of 3 rows, 2 classes: brain, lung",
    ]
