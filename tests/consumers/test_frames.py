"""pandas and polars: shared tables as frames, and which columns are copied."""

import gc
import math

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import posixshm
import posixshm.arrow
from posixshm import SharedMemory


def start_polars():
    """The threads of polars start with its first call."""
    pl.DataFrame({"x": range(1000)}).lazy().group_by("x").len().collect()


start_polars()

NUMBERS = ["int", "float"]  # pandas must be installed


class Range:
    """The address range of a shared table in this process."""

    def __init__(self, name):
        with SharedMemory.open(name, readonly=True) as shm:
            self.inode = f" {shm.stat().st_ino} "

    def __contains__(self, address):
        with open("/proc/self/maps") as maps:
            for line in maps:
                if self.inode in line:
                    low, high = (int(end, 16) for end in line.split()[0].split("-"))
                    if low <= address < high:
                        return True
        return False


@pytest.fixture
def written(name, table):
    posixshm.arrow.write(name, table)
    yield name
    posixshm.shm_unlink(name)


@pytest.fixture
def whole(name, table):
    """The table in one chunk, which pandas needs, without nested columns."""
    flat = table.drop_columns(["struct", "list", "nothing"])
    posixshm.arrow.write(name, flat.combine_chunks().unify_dictionaries())
    yield name
    posixshm.shm_unlink(name)


def data_of(array):
    """The addresses of an Arrow array's buffers."""
    return [buffer.address for buffer in array.buffers() if buffer is not None]


# -- pandas -------------------------------------------------------------------------------------


def test_pandas_takes_numbers_without_a_copy(whole):
    shared = Range(whole)
    numbers = posixshm.arrow.read(whole).select(NUMBERS)
    frame = numbers.to_pandas(split_blocks=True, zero_copy_only=True)
    for column in NUMBERS:
        array = frame[column].to_numpy()
        assert array.ctypes.data in shared
        assert not array.flags.writeable
    assert frame["int"].tolist() == list(range(100))
    with pytest.raises(ValueError, match="read-only"):
        frame.loc[0, "int"] = 5


def test_pandas_raises_if_it_would_have_to_copy(whole):
    table = posixshm.arrow.read(whole)
    for column in ("bool", "missing", "kind"):
        with pytest.raises(pa.ArrowInvalid):
            table.select([column]).to_pandas(zero_copy_only=True)


def test_pandas_takes_every_column_as_arrow_without_a_copy(written, table):
    shared = Range(written)
    frame = posixshm.arrow.read(written).to_pandas(types_mapper=pd.ArrowDtype)
    assert frame.shape == (100, 13)
    for name in frame.columns:
        for chunk in frame[name].array.__arrow_array__().chunks:
            assert all(address in shared for address in data_of(chunk))
    assert frame["text"].tolist() == [f"number {n}" for n in range(100)]
    frame.loc[0, "int"] = 5  # creates a new column
    assert posixshm.arrow.read(written)["int"][0].as_py() == 0


def test_pandas_frames_are_written_with_their_index(name):
    frame = pd.DataFrame(
        {"x": [1.5, math.nan], "y": ["a", "b"]}, index=pd.Index(["k", "l"], name="i")
    )
    posixshm.arrow.write(name, frame)
    got = posixshm.arrow.read(name).to_pandas()
    pd.testing.assert_frame_equal(got, frame)
    posixshm.shm_unlink(name)


def test_pandas_reads_the_object_as_a_feather_file(written, table):
    frame = pd.read_feather(f"/dev/shm/{written}", dtype_backend="pyarrow")
    assert frame["decimal"].tolist() == table["decimal"].to_pylist()


def test_pandas_over_an_array(name):
    with SharedMemory.create(name, 4096, delete=True) as shm:
        view = shm.view("d", (16, 4))
        frame = pd.DataFrame(view.numpy(), columns=list("abcd"), copy=False)
        assert frame["a"].to_numpy().ctypes.data == view.address
        view[3, 0] = 1.5
        assert frame.loc[3, "a"] == 1.5
        assert pd.Series(view[0].numpy()).to_numpy().ctypes.data != view.address  # no copy=False
        with SharedMemory.open(name, readonly=True) as reader:
            frame = pd.DataFrame(reader.view("d", (16, 4)).numpy(), copy=False)
        with pytest.raises(ValueError, match="read-only"):
            frame.iloc[0, 0] = 7
    assert view[0, 0] == 0


# -- polars -------------------------------------------------------------------------------------


def test_polars_takes_columns_without_a_copy(written, table):
    shared = Range(written)
    frame = pl.from_arrow(posixshm.arrow.read(written), rechunk=False)
    assert frame["int"].n_chunks() == 2
    for name in NUMBERS + ["missing", "bool", "short", "time"]:
        for chunk in frame[name].get_chunks():
            array = chunk.to_arrow(compat_level=pl.CompatLevel.newest())
            assert all(address in shared for address in data_of(array)), name
    for name in table.column_names:
        assert frame[name].to_list() == table[name].to_pylist()


def test_polars_copies_text(written):
    """polars stores text as string_view. It uses a column of that type without a copy (see
    above)."""
    shared = Range(written)
    series = pl.from_arrow(posixshm.arrow.read(written).select(["text"]), rechunk=False)["text"]
    array = series.get_chunks()[0].to_arrow(compat_level=pl.CompatLevel.newest())
    assert array.type == pa.string_view()
    assert not any(address in shared for address in data_of(array))


def test_polars_copies_rather_than_write(written, table):
    frame = pl.from_arrow(posixshm.arrow.read(written), rechunk=False)
    array = frame["int"].get_chunks()[0].to_numpy(allow_copy=False)
    assert not array.flags.writeable
    series = frame["int"].rechunk()
    series[0] = 4711
    assert series[0] == 4711
    one = frame["float"].get_chunks()[0]
    one[0] = 4711.0
    assert (one[0], frame["float"][0]) == (4711.0, 0.0)
    assert posixshm.arrow.read(written).equals(table)


def test_polars_frames_are_written(name):
    frame = pl.DataFrame({"x": [1, None, 3], "y": ["a", "b", None], "z": [[1], [], [2, 3]]})
    posixshm.arrow.write(name, frame)
    shared = Range(name)
    got = pl.from_arrow(posixshm.arrow.read(name))
    assert got.equals(frame)
    text = got["y"].to_arrow(compat_level=pl.CompatLevel.newest())
    assert all(address in shared for address in data_of(text))
    posixshm.shm_unlink(name)


def test_polars_objects_are_refused(name):
    frame = pl.DataFrame({"x": [1], "y": pl.Series([object()], dtype=pl.Object)})
    with pytest.raises(TypeError, match=r"\['y'\] contain Python objects"):
        posixshm.arrow.write(name, frame)
    assert name not in posixshm.listdir()


def test_polars_reads_the_object_as_an_ipc_file(written, run_python):
    run_python(  # in a child, because polars keeps a thread for ten seconds
        """
        import sys
        import polars
        frame = polars.read_ipc(f"/dev/shm/{sys.argv[1]}")
        assert frame["text"].to_list() == [f"number {n}" for n in range(100)]
        """,
        written,
    )


def test_polars_over_an_array(name):
    with SharedMemory.create(name, 4096, delete=True) as shm:
        view = shm.view("d", 16)
        series = pl.Series("x", view.numpy())
        assert series.to_numpy(allow_copy=False).ctypes.data == view.address
        shm.view("d", 16)[3] = 1.5
        assert series[3] == 1.5
        series[3] = 2.5
        assert (series[3], view[3]) == (2.5, 1.5)


# -- both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "take",
    [
        lambda table: table.to_pandas(split_blocks=True, zero_copy_only=True)["float"],
        lambda table: table.to_pandas(types_mapper=pd.ArrowDtype)["float"],
        lambda table: pl.from_arrow(table, rechunk=False)["float"],
    ],
    ids=["pandas", "pandas as Arrow", "polars"],
)
def test_frames_outlive_the_table_and_the_name(take, name):
    posixshm.arrow.write(name, pa.table({"float": np.arange(1000.0)}))
    column = take(posixshm.arrow.read(name))
    posixshm.shm_unlink(name)
    gc.collect()
    assert column.sum() == 499500


def test_an_interpreter_can_end_while_frames_exist(written, run_python):
    run_python(
        """
        import sys
        import pandas, polars, posixshm.arrow
        table = posixshm.arrow.read(sys.argv[1])
        sys.late = [
            table.select(["int"]).to_pandas(),
            table.to_pandas(types_mapper=pandas.ArrowDtype),
            polars.from_arrow(table, rechunk=False),
        ]
        sys.late.append(sys.late)
        """,
        written,
    )
