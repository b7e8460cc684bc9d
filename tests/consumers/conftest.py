"""The real consumers of shared arrays: numpy, torch, jax, pyarrow, polars and pandas.

Their threads start with their first call, so that call is made before any test. The packages are
large, so pytest collects this folder only if it is named: pytest tests/consumers. A missing package
is an error here.
"""

import os
import tempfile

import pyarrow as pa
import pytest

os.environ["JAX_PLATFORMS"] = "cpu"


def start_pyarrow():
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    numbers = pa.table({"x": pa.array(range(1000))})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(sink, numbers.schema, options=options) as writer:
        writer.write_table(numbers)
    with tempfile.TemporaryFile() as file:
        file.write(sink.getvalue())
        file.seek(0)
        pa.ipc.open_file(file).read_all()


start_pyarrow()


@pytest.fixture
def table():
    """A table with a column of each kind, in two chunks."""
    count = 100
    columns = {
        "int": pa.array(range(count), pa.int32()),
        "float": pa.array([n / 4 for n in range(count)]),
        "missing": pa.array([None if n % 3 else n for n in range(count)]),
        "bool": pa.array([n % 2 == 0 for n in range(count)]),
        "text": pa.array([f"number {n}" for n in range(count)]),
        "short": pa.array(
            [f"a text of more than 12 bytes, {n}" for n in range(count)], pa.string_view()
        ),
        "bytes": pa.array([bytes([n]) * (n % 5) for n in range(count)]),
        "list": pa.array([[n] * (n % 4) for n in range(count)]),
        "struct": pa.array([{"x": n, "y": str(n)} for n in range(count)]),
        "decimal": pa.array(range(count), pa.decimal128(20, 2)),
        "time": pa.array(range(count), pa.timestamp("us", "UTC")),
        "kind": pa.array([f"kind {n % 5}" for n in range(count)]).dictionary_encode(),
        "nothing": pa.nulls(count),
    }
    whole = pa.table(columns, metadata={"made by": "hand"})
    return pa.concat_tables([whole.slice(0, 60), whole.slice(60)])
