"""A table under a name is an Arrow file, and its columns are the object's bytes."""

import contextlib
import errno
import gc
import os
import random
import struct

import pyarrow as pa
import pytest
from _processes import PATH, address_of, needs_acls

import posixshm
import posixshm.arrow
from posixshm import SharedMemory

SHM = "/dev/shm/"


@pytest.fixture
def written(name, table):
    """The name of a written table."""
    posixshm.arrow.write(name, table)
    yield name
    posixshm.shm_unlink(name)


def buffers(table):
    """All buffers of the table's columns, including children and dictionaries."""
    for column in table.columns:
        for chunk in column.chunks:
            yield from filter(None, chunk.buffers())
            if isinstance(chunk, pa.DictionaryArray):
                yield from filter(None, chunk.dictionary.buffers())


def mapped(address, size, name):
    """Are these bytes in a read-only mapping of the object?"""
    with open("/proc/self/maps") as maps:
        for line in maps:
            if line.rstrip().endswith(SHM + name):
                span, protection = line.split()[:2]
                low, high = (int(end, 16) for end in span.split("-"))
                if low <= address and address + size <= high:
                    return protection == "r--s"
    return False


# -- without a copy -----------------------------------------------------------------------------


def test_every_buffer_is_in_the_memory_of_the_object(written, table):
    got = posixshm.arrow.read(written)
    assert got.equals(table, check_metadata=True)
    assert [column.num_chunks for column in got.columns] == [2] * table.num_columns
    found = list(buffers(got))
    assert len(found) > 30
    for buffer in found:
        assert not buffer.is_mutable
        assert buffer.address % 8 == 0
        assert mapped(buffer.address, buffer.size, written)


def test_a_write_by_another_process_is_seen(name, run_python):
    posixshm.arrow.write(name, pa.table({"x": pa.array([11, 0x123456789ABCDEF, 13])}))
    column = posixshm.arrow.read(name)["x"]
    run_python(
        """
        import sys
        from posixshm import SharedMemory
        old, new = (n.to_bytes(8, sys.byteorder) for n in (0x123456789ABCDEF, 4711))
        with SharedMemory.open(sys.argv[1]) as shm:
            offset = bytes(shm.buf).index(old)
            shm.buf[offset : offset + 8] = new
        """,
        name,
    )
    assert column.to_pylist() == [11, 4711, 13]
    posixshm.shm_unlink(name)


def test_columns_outlive_everything_else(name, table):
    posixshm.arrow.write(name, table)
    read = posixshm.arrow.read(name)
    chunk = read["text"].chunk(1)
    numbers = read["int"].chunk(0).to_numpy(zero_copy_only=True)
    posixshm.shm_unlink(name)
    del read
    gc.collect()
    assert chunk.to_pylist() == [f"number {n}" for n in range(60, 100)]
    assert numbers.tolist() == list(range(60))
    assert not numbers.flags.writeable
    with pytest.raises(ValueError):
        numbers.flags.writeable = True


def test_the_object_is_in_use_while_a_column_exists(name, names, table):
    posixshm.arrow.write(name, table)
    column = posixshm.arrow.read(name)["int"]
    assert [row.state for row in posixshm.reclaim(name)] == ["in use"]
    del column
    gc.collect()
    assert [row.removed for row in posixshm.reclaim(name)] == [True]


def test_an_interpreter_can_end_while_a_column_exists(written, run_python):
    code = """
        import sys
        import posixshm.arrow
        class Late:
            def __del__(self):
                assert self.column[99].as_py() == "number 99"
        sys.late = Late()
        sys.late.column = posixshm.arrow.read(sys.argv[1])["text"]
        """
    run_python(code, written)


# -- writing ------------------------------------------------------------------------------------


def test_the_object_is_an_arrow_file_of_exactly_that_size(written, table):
    with pa.memory_map(SHM + written) as file:
        assert pa.ipc.open_file(file).read_all().equals(table)
    with pa.OSFile(SHM + written, "rb") as file:
        assert file.read(6) == b"ARROW1"
        file.seek(file.size() - 6)
        assert file.read() == b"ARROW1"


@pytest.mark.parametrize(
    "empty",
    [
        pa.table({}),
        pa.table({"x": pa.array([], pa.int64())}),
        pa.schema([("x", pa.string()), ("y", pa.dictionary(pa.int8(), pa.string()))]).empty_table(),
    ],
    ids=["no columns", "no rows", "no chunks"],
)
def test_empty_tables(empty, name):
    posixshm.arrow.write(name, empty)
    assert posixshm.arrow.read(name).equals(empty)
    posixshm.shm_unlink(name)


def test_a_batch_and_a_mapping_of_columns(names):
    for data in (pa.record_batch({"x": [1, 2]}), {"x": pa.array([1, 2])}):
        name = names()
        posixshm.arrow.write(name, data)
        assert posixshm.arrow.read(name).to_pydict() == {"x": [1, 2]}
        posixshm.shm_unlink(name)


def test_dictionaries_that_differ_from_chunk_to_chunk(name):
    one, two = (pa.array(words).dictionary_encode() for words in (["a", "b"], ["c", "a"]))
    table = pa.table({"x": pa.chunked_array([one, two])})
    posixshm.arrow.write(name, table)
    assert posixshm.arrow.read(name)["x"].to_pylist() == ["a", "b", "c", "a"]
    posixshm.shm_unlink(name)


def test_bad_tables_are_refused_and_leave_nothing(name):
    for data in ("text", 17, None, object()):
        with pytest.raises((TypeError, ValueError)):
            posixshm.arrow.write(name, data)
    assert not os.path.exists(SHM + name)


def test_a_name_is_taken_only_with_replace(written, table):
    old = posixshm.arrow.read(written)
    other = pa.table({"x": [1, 2, 3]})
    with pytest.raises(FileExistsError):
        posixshm.arrow.write(written, other)
    assert posixshm.arrow.read(written).equals(table)
    posixshm.arrow.write(written, other, replace=True)
    assert posixshm.arrow.read(written).equals(other)
    assert old.equals(table)  # its readers still use it


def test_readers_find_a_complete_table_while_it_is_replaced(name, start_python):
    def version(number):
        return pa.table({"x": pa.array([number] * (1000 + number), pa.int64())})

    posixshm.arrow.write(name, version(0))
    reader = start_python(
        """
        import sys
        import posixshm.arrow
        from _processes import ready, stopped
        ready()
        seen = set()
        while not stopped():
            column = posixshm.arrow.read(sys.argv[1])["x"].to_numpy()
            assert len(column) == 1000 + column[0] and (column == column[0]).all()
            seen.add(int(column[0]))
        print(len(seen))
        """,
        name,
        env=PATH,
    )
    reader.hear("ready")
    reader.say("go")
    for number in range(1, 300):
        posixshm.arrow.write(name, version(number), replace=True)
    reader.say("stop")
    assert int(reader.hear()) >= 1
    reader.finish()
    posixshm.shm_unlink(name)


def test_options_are_those_of_a_segment(name, table):
    posixshm.arrow.write(name, table, mode=0o640, reserve=False)
    assert os.stat(SHM + name).st_mode & 0o777 == 0o640
    posixshm.shm_unlink(name)
    with pytest.raises(TypeError):
        posixshm.arrow.write(name, table, color="red")


def test_a_table_can_have_an_access_control_list(name, table):
    needs_acls()
    posixshm.arrow.write(name, table, acl=f"user:{os.getuid()}:rw")
    with SharedMemory.open(name) as shm:
        assert f"user:{os.getuid()}:rw-\n" in shm.getfacl(numeric=True)
        shm.unlink()


def test_a_full_mount_is_an_error_and_leaves_nothing(run_python):
    run_python(
        """
        from _processes import private_shm, raises
        import errno, os
        import posixshm.arrow
        import pyarrow as pa
        private_shm("size=1m")
        table = pa.table({"x": pa.array(range(1 << 18), pa.int64())})
        with raises(errno.ENOSPC) as caught:
            posixshm.arrow.write("x", table)
        assert caught[0].filename == "x", caught
        assert os.listdir("/dev/shm") == []
        """,
        env=PATH,
    )


def test_writing_goes_through_no_mapping(name, run_python):
    """A mapping would cause a page fault for each page."""
    run_python(
        """
        import resource, sys
        import pyarrow as pa
        import posixshm, posixshm.arrow
        table = pa.table({"x": pa.array(range(1 << 20), pa.int64()), "y": ["ab"] * (1 << 20)})
        posixshm.arrow.write(sys.argv[1], table[:10])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        posixshm.arrow.write(sys.argv[1], table, replace=True)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000
        assert posixshm.arrow.read(sys.argv[1]).equals(table)
        posixshm.shm_unlink(sys.argv[1])
        """,
        name,
    )


# -- damaged files ------------------------------------------------------------------------------


def put(name, content):
    with SharedMemory.unlinked(max(1, len(content))) as shm:
        shm.buf[: len(content)] = content
        shm.link(name, replace=True)


def as_file(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def refused(name, **options):
    with pytest.raises(ValueError, match=f"'{name}' is not a valid Arrow IPC file: "):
        posixshm.arrow.read(name, **options)


def test_a_missing_name(name, table):
    with pytest.raises(FileNotFoundError) as caught:
        posixshm.arrow.read(name)
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(TimeoutError):
        posixshm.arrow.read(name, timeout=0.01)


def test_a_table_truncated_anywhere(name, table):
    content = as_file(table)
    for length in [*range(0, len(content), 97), *range(len(content) - 20, len(content))]:
        put(name, content[:length])
        refused(name)
    put(name, content + bytes(8))
    refused(name)
    posixshm.shm_unlink(name)


def test_files_that_are_not_arrow(name):
    random_bytes = random.Random(1).randbytes(5000)
    contents = [b"", b"ARROW1", b"ARROW1" * 2, bytes(5000), random_bytes]
    contents += [
        b"ARROW1\0\0" + random_bytes + struct.pack("<i", size) + b"ARROW1"
        for size in (-1, 0, 100, 1 << 30)
    ]
    for content in contents:
        put(name, content)
        refused(name)
    posixshm.shm_unlink(name)


def test_damage_is_an_error_or_changes_values_only(name, table, run_python):
    """Unused bytes and numbers may have any value. Other damage is an error, never a crash."""
    put(name, as_file(table))
    code = """
        import random, sys
        import posixshm.arrow
        from posixshm import SharedMemory
        name, seed = sys.argv[1], int(sys.argv[2])
        random = random.Random(seed)
        shm = SharedMemory.open(name)
        whole = bytes(shm.buf)
        results = {"read": 0, "refused": 0}
        for _ in range(1500):
            for _ in range(random.choice((1, 1, 2, 8))):
                shm.buf[random.randrange(shm.size)] = random.choice((0, 127, 128, 255))
            try:
                table = posixshm.arrow.read(name)
            except ValueError:
                results["refused"] += 1
            else:
                table.to_string(show_metadata=True)
                for column in table.columns:
                    repr(column)
                    column.drop_null().to_numpy(zero_copy_only=False)
                results["read"] += 1
            shm.buf[:] = whole
        assert min(results.values()) > 100, results
        """
    for seed in range(2):
        run_python(code, name, seed)
    posixshm.shm_unlink(name)


def test_blocks_that_overlap_are_refused(name):
    """A footer may list one batch many times; each entry would become a chunk of every column."""
    batches = pa.table({f"{n}": list(range(40)) for n in range(3)}).to_batches(max_chunksize=10)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    content = bytearray(sink.getvalue().to_pybytes())
    put(name, content)
    assert posixshm.arrow.read(name).num_rows == 40
    length = int.from_bytes(content[-10:-6], "little")
    block = struct.Struct("<qi4xq")  # offset and two lengths, then the next block

    def follow(place):
        one, two = (block.unpack_from(content, place + skip) for skip in (0, 24))
        return 0 < one[0] < len(content) and sum(one) == two[0]

    place = next(
        place for place in range(len(content) - 10 - length, len(content)) if follow(place)
    )
    content[place : place + 4 * 24] = content[place : place + 24] * 4
    put(name, content)
    assert pa.ipc.open_file(pa.BufferReader(bytes(content))).read_all().num_rows == 40
    with pytest.raises(ValueError, match="two of its 4 blocks overlap"):
        posixshm.arrow.read(name)
    posixshm.shm_unlink(name)


def test_a_sparse_file_costs_no_memory(name, run_python):
    """The file has 2 GiB, and its footer is all zeros or claims to be the whole file."""
    fd = posixshm.shm_open(name, os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, 2 << 30)
    os.pwrite(fd, b"ARROW1\0\0", 0)
    for length in (0, 1000, (2 << 30) - 20):
        os.pwrite(fd, struct.pack("<i", min(length, 2**31 - 1)) + b"ARROW1", (2 << 30) - 10)
        run_python(
            """
            import resource, sys
            import pyarrow, posixshm.arrow
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                posixshm.arrow.read(sys.argv[1])
            except ValueError:
                pass
            else:
                raise AssertionError
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
            """,
            name,
        )
    os.close(fd)
    posixshm.shm_unlink(name)


def test_an_old_pyarrow_is_refused(name, table, monkeypatch):
    """An old pyarrow runs code in files."""
    posixshm.arrow.write(name, table)
    for version in ("14.0.0", "13.0.0.dev5", "0.17.1", "nonsense"):
        monkeypatch.setattr(pa, "__version__", version)
        with pytest.raises(ImportError, match=f"needs pyarrow 14.0.1 or later, not {version}"):
            posixshm.arrow.read(name)
    for version in ("14.0.1", "15.0.0.dev3+gabc", "100.0.0"):
        monkeypatch.setattr(pa, "__version__", version)
        assert posixshm.arrow.read(name).equals(table)
    posixshm.shm_unlink(name)


def test_a_pickle_in_the_metadata_is_not_run(name, tmp_path):
    """The metadata has the extension type that older versions of pyarrow unpickle."""
    evil = tmp_path / "it was run"
    pickled = b"cos\nsystem\n(S'touch \"%s\"'\ntR." % str(evil).encode()
    metadata = {b"ARROW:extension:name": b"arrow.py_extension_type"}
    metadata[b"ARROW:extension:metadata"] = pickled
    field = pa.field("x", pa.int64(), metadata=metadata)
    put(name, as_file(pa.table([pa.array([1, 2])], schema=pa.schema([field]))))
    with contextlib.suppress(ValueError):
        repr(posixshm.arrow.read(name))
    assert not evil.exists()
    posixshm.shm_unlink(name)


def test_what_a_signal_handler_raises_is_not_taken_for_damage(name, table, run_python):
    put(name, as_file(table))
    run_python(
        """
        import random, signal, sys
        import posixshm.arrow
        classes = ValueError, OSError, TimeoutError, MemoryError, KeyError
        raised, armed = [], []
        def handler(number, frame):
            if armed:
                raised.append(random.choice(classes)("from the handler"))
                raise raised[-1]
        signal.signal(signal.SIGALRM, handler)
        # Imports pyarrow: Python 3.11 wraps what a handler raises while a class is made.
        posixshm.arrow.read(sys.argv[1])
        while len(raised) < 300:
            try:
                try:
                    armed.append(True)
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 2e-3))
                    posixshm.arrow.read(sys.argv[1])
                finally:
                    armed.clear()
            except classes as error:
                assert error is raised[-1], error
            signal.setitimer(signal.ITIMER_REAL, 0)
        """,
        name,
    )
    posixshm.shm_unlink(name)


def test_exceptions_of_an_extension_type_are_propagated(name):
    class Registered(pa.ExtensionType):
        def __init__(self):
            super().__init__(pa.int64(), "posixshm.test")

        def __arrow_ext_serialize__(self):
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage, serialized):
            raise LookupError("of the extension type")

    pa.register_extension_type(Registered())
    try:
        array = pa.ExtensionArray.from_storage(Registered(), pa.array([1, 2]))
        put(name, as_file(pa.table({"x": array})))
        with pytest.raises(LookupError, match="of the extension type"):
            posixshm.arrow.read(name)
    finally:
        pa.unregister_extension_type("posixshm.test")
    posixshm.shm_unlink(name)


def test_only_validate_reads_the_values(name):
    content = bytearray(as_file(pa.table({"x": ["aa", "bb", "cc"]})))
    offsets = content.index(struct.pack("<4i", 0, 2, 4, 6))
    content[offsets + 4 : offsets + 8] = struct.pack("<i", 1 << 29)
    put(name, content)
    refused(name)
    assert posixshm.arrow.read(name, validate=False).num_rows == 3
    posixshm.shm_unlink(name)


def test_a_reader_needs_read_permission_only(written):
    before = os.stat(SHM + written)
    posixshm.arrow.read(written)
    after = os.stat(SHM + written)
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)


def test_compressed_files_of_other_programs_are_copied(name, table):
    numbers = pa.table({"x": pa.array(range(1000), pa.int64())})
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, numbers.schema, options=options) as writer:
        writer.write_table(numbers)
    put(name, sink.getvalue().to_pybytes())
    got = posixshm.arrow.read(name)
    assert got.equals(numbers)
    assert not any(mapped(buffer.address, buffer.size, name) for buffer in buffers(got))
    posixshm.shm_unlink(name)


# -- pyarrow without the helper -----------------------------------------------------------------


def test_a_buffer_of_a_handle_or_a_mapping(name):
    with SharedMemory.create(name, 4096, delete=True) as shm:
        for exporter in (shm, shm.map(), shm.buf):
            buffer = pa.py_buffer(exporter)
            assert buffer.is_mutable
            assert buffer.address == address_of(exporter)
        with SharedMemory.open(name, readonly=True) as reader:
            buffer = pa.py_buffer(reader)
        assert not buffer.is_mutable
        array = pa.Array.from_buffers(pa.int64(), 512, [None, buffer])
        del buffer
        shm.buf[:8] = (4711).to_bytes(8, "little")
        assert array[0].as_py() == 4711


@pytest.mark.parametrize("rows", [2, 1 << 18])
def test_reclaim_keeps_a_table_that_a_process_uses(name, rows):
    old, new = (pa.table({"a": pa.array([number] * rows)}) for number in range(2))
    stale = {"exist_ok": True, "stale": "replace"}
    posixshm.arrow.write(name, old, **stale)
    used = posixshm.arrow.read(name)
    posixshm.arrow.write(name, new, **stale)
    assert posixshm.arrow.read(name).equals(old) and used.equals(old)
    with pytest.raises(FileExistsError, match="uses it: exist_ok=True|uses it: replace=True"):
        posixshm.arrow.write(name, new)
    del used
    posixshm.arrow.write(name, new, **stale)
    assert posixshm.arrow.read(name).equals(new)
    with pytest.raises(FileExistsError, match="no process uses it"):
        posixshm.arrow.write(name, old, exist_ok=True, stale="error")
    posixshm.shm_unlink(name)
