"""Large buffers: written to freely, kept for ever, and never in each other's way."""

import contextlib
import gc
import pickle
import signal
import threading
import weakref
from pathlib import Path

import pytest
import support
import tasks
from support import make, run

np = pytest.importorskip("numpy")

MANY = 300_000  # doubles: well above what is copied into the pickle


def numbers(count=MANY):
    return np.arange(count, dtype="f8")


def test_there_and_back(shared_pool):
    array = numbers()
    got = shared_pool.apply(tasks.identity, (array,))
    assert type(got) is np.ndarray
    assert got.dtype == array.dtype and got.shape == array.shape
    assert np.array_equal(got, array)
    assert shared_pool.apply(tasks.total, (array,)) == array.sum()


@pytest.mark.parametrize(
    "count", [0, 1, 10, 511, 512, 513, 4096, 8191, 8192, 8193, 65_536, 131_072, 1_000_001]
)
def test_every_size(fork_pool, count):
    array = numbers(count)
    assert np.array_equal(fork_pool.apply(tasks.identity, (array,)), array)
    assert np.array_equal(fork_pool.map(tasks.add_one, [array, array], 1)[1], array + 1)


@pytest.mark.parametrize(
    "dtype",
    [
        "?",
        "i1",
        "u2",
        "i4",
        "u8",
        "f2",
        "f4",
        "f8",
        "c8",
        "c16",
        "S7",
        "U5",
        "M8[s]",
        "m8[ms]",
        ">i4",
        ">f8",
        "i4,f8",
        "V16",
    ],
)
@pytest.mark.parametrize("count", [3, 100_000])
def test_every_type(fork_pool, dtype, count):
    if not support.OURS and dtype.startswith(">"):
        pytest.skip("numpy's older pickles change the order of bytes")
    array = np.zeros(count, dtype=dtype)
    raw = array.view("u1").reshape(-1)
    if np.dtype(dtype).kind not in "US?":
        raw[:] = np.arange(raw.size) % 120
    got = fork_pool.apply(tasks.identity, (array,))
    assert got.dtype == array.dtype
    assert got.tobytes() == array.tobytes()


def views():
    base = np.arange(600 * 700, dtype="f8").reshape(600, 700)
    return {
        "two dimensions": base,
        "fortran": np.asfortranarray(base),
        "transposed": base.T,
        "rows": base[100:500],
        "columns": base[:, 100:500],
        "every other": base[::2, ::3],
        "backwards": base[::-1],
        "backwards columns": base[:, ::-1],
        "broadcast": np.broadcast_to(base[0], (300, 700)),
        "five dimensions": base.reshape(5, 12, 10, 70, 10),
        "no items": base[:0],
        "no columns": base[:, :0],
        "a scalar": np.array(5.0),
        "one": base[5:6, 5:6],
        "shifted": np.frombuffer(b"x" + base.tobytes(), "u1")[1:].view("u1"),
        "unaligned": np.frombuffer(b"x" + base.tobytes(), "f8", offset=1),
        "records": np.zeros(50_000, dtype=[("a", "i4"), ("b", "f8", (3,))]),
        "a field": np.zeros(50_000, dtype=[("a", "i4"), ("b", "f8")])["b"],
    }


def test_read_only_arrays_arrive_writable(shared_pool):
    """As with multiprocessing: what arrives is the receiver's own."""
    array = numbers()
    array.flags.writeable = False
    assert shared_pool.apply(tasks.write_all, (array, 1.0))[0]
    assert shared_pool.apply(tasks.identity, (array,)).flags.writeable


@pytest.mark.parametrize("name", views())
def test_every_layout(shared_pool, name):
    array = views()[name]
    got = shared_pool.apply(tasks.identity, (array,))
    assert got.shape == array.shape and got.dtype == array.dtype
    assert np.array_equal(got, array)
    seen = shared_pool.apply(tasks.look_at_array, (array,))
    expected = pickle.loads(pickle.dumps(array, 5))
    assert (seen["c"], seen["f"]) == (expected.flags.c_contiguous, expected.flags.f_contiguous)
    assert seen["writeable"]


def test_objects_in_arrays(fork_pool):
    array = np.array([1, "text", None, [2, 3], {"a": 4}] * 5000, dtype=object)
    got = fork_pool.apply(tasks.identity, (array,))
    assert got.dtype == object and list(got) == list(array)


def test_subclasses_of_arrays(fork_pool):
    masked = np.ma.masked_greater(numbers(), 100)
    got = fork_pool.apply(tasks.identity, (masked,))
    assert type(got) is type(masked) and got.count() == 101
    matrix = np.asmatrix(numbers(250_000).reshape(500, 500))
    got = fork_pool.apply(tasks.identity, (matrix,))
    assert type(got) is np.matrix and np.array_equal(got, matrix)
    records = np.rec.array(np.zeros(50_000, dtype=[("a", "i4"), ("b", "f8")]))
    assert type(fork_pool.apply(tasks.identity, (records,))) is np.recarray


def test_arrays_deep_in_values(fork_pool):
    value = {"a": [numbers(), (numbers(10), {"b": numbers() * 2})], "c": "text"}
    got = fork_pool.apply(tasks.identity, (value,))
    assert np.array_equal(got["a"][0], value["a"][0])
    assert np.array_equal(got["a"][1][0], value["a"][1][0])
    assert np.array_equal(got["a"][1][1]["b"], value["a"][1][1]["b"])
    assert got["c"] == "text"


def test_arrays_as_keywords(fork_pool):
    args, kwds = fork_pool.apply(tasks.collect, (numbers(), 5), {"table": numbers() + 1})
    assert args[0].sum() == numbers().sum() and args[1] == 5
    assert kwds["table"][0] == 1


def test_the_same_array_twice(shared_pool):
    array = numbers()
    assert shared_pool.apply(tasks.same_object, (array, array))
    left, right = shared_pool.apply(tasks.identity, ((array, array),))
    assert left is right


def test_two_views_of_one_array_do_not_share(fork_pool):
    """As with pickle: each view is an array of its own."""
    array = numbers()
    assert not fork_pool.apply(tasks.shares_memory, (array[:], array[:]))


def test_several_large_arrays_at_once(shared_pool):
    arrays = [np.full(200_000, n, dtype="f8") for n in range(20)]
    got = shared_pool.apply(tasks.identity, (arrays,))
    assert [a[0] for a in got] == [a[-1] for a in got] == list(range(20))
    assert shared_pool.starmap(tasks.collect, [tuple(arrays)])[0][0][7][5] == 7


def test_arrays_in_maps(shared_pool):
    arrays = [np.full(150_000, n, dtype="f8") for n in range(30)]
    for chunksize in (None, 1, 30):
        assert shared_pool.map(tasks.total, arrays, chunksize) == [150_000.0 * n for n in range(30)]
    got = shared_pool.map(tasks.add_one, arrays)
    assert [(a[0], a[-1]) for a in got] == [(n + 1, n + 1) for n in range(30)]
    got = list(shared_pool.imap(tasks.add_one, iter(arrays)))
    assert [a.mean() for a in got] == [n + 1 for n in range(30)]


def test_an_array_as_the_iterable(shared_pool):
    got = shared_pool.map(tasks.describe, np.arange(1000))
    assert got == [tasks.describe(item) for item in np.arange(1000)]
    rows = np.arange(12.0).reshape(4, 3)
    assert shared_pool.map(tasks.total, rows) == [float(row.sum()) for row in rows]
    assert shared_pool.starmap(tasks.collect, np.arange(6).reshape(3, 2)) == [
        ((0, 1), {}),
        ((2, 3), {}),
        ((4, 5), {}),
    ]
    for dtype in ("i1", "u8", "f4", "f8", "?", "c16", "U3", "M8[s]", ">i4"):
        items = np.zeros(50, dtype=dtype)
        assert shared_pool.map(tasks.describe, items, 7) == [tasks.describe(item) for item in items]


@pytest.mark.parametrize("layout", [slice(None, None, 2), slice(None, None, -1), slice(5, 5)])
def test_a_view_as_the_iterable(fork_pool, layout):
    items = np.arange(500)[layout]
    assert fork_pool.map(tasks.identity, items) == list(items)


def test_results_of_maps_over_arrays(fork_pool):
    got = fork_pool.map(tasks.square, np.arange(100.0))
    assert got == [n * n for n in np.arange(100.0)]
    assert type(got) is list
    assert type(got[0]) is np.float64


def test_array_objects_as_the_iterable(fork_pool):
    import array

    items = array.array("d", [1.5, 2.5, 3.5])
    assert fork_pool.map(tasks.describe, items) == ["float:1.5", "float:2.5", "float:3.5"]
    items = np.array([1, "a", None], dtype=object)
    assert fork_pool.map(tasks.describe, items) == ["int:1", "str:'a'", "NoneType:None"]


# Writing


def test_workers_may_write(shared_pool):
    array = numbers()
    total = array.sum()
    for _ in range(3):
        assert shared_pool.apply(tasks.write_all, (array, 1.0)) == (True, total, float(MANY))
    assert array.sum() == total


def test_workers_may_write_in_maps(fork_pool):
    array = numbers()
    total = float(array.sum())
    got = fork_pool.starmap(tasks.write_all, [(array, float(n)) for n in range(8)], 1)
    assert got == [(True, total, float(n * MANY)) for n in range(8)]
    # The same object in items of one chunk is one object there, too; chunks have nothing in common.
    got = fork_pool.starmap(tasks.write_all, [(array, float(n)) for n in range(8)], 4)
    assert [before for _, before, _ in got[::4]] == [total, total]
    assert [after for _, _, after in got] == [float(n * MANY) for n in range(8)]
    assert array.sum() == total


def test_results_may_be_written(shared_pool):
    first = shared_pool.apply(tasks.make_array, (MANY, 1.0))
    assert first.flags.writeable
    second = shared_pool.apply(tasks.make_array, (MANY, 2.0))
    first[...] = 7.0
    assert second.sum() == 2.0 * MANY
    assert first.sum() == 7.0 * MANY
    again = shared_pool.apply(tasks.identity, (first,))
    again[...] = 8.0
    assert first.sum() == 7.0 * MANY


def test_a_written_argument_is_returned_as_written(shared_pool):
    got = shared_pool.apply(fill_and_return, (numbers(), 4.0))
    assert got.sum() == 4.0 * MANY


def fill_and_return(array, value):
    array[...] = value
    return array


@pytest.mark.ours
def test_a_retry_sees_the_input_as_it_was(method, make_pool, tmp_path):
    pool = make_pool(2, method=method)
    array = numbers()
    total = float(array.sum())
    assert pool.apply(tasks.write_and_die_first, (str(tmp_path / "a"), array), retries=1) == total
    shared = pool.share(array)
    assert pool.apply(tasks.write_and_die_first, (str(tmp_path / "b"), shared), retries=1) == total
    items = [(str(tmp_path / f"c{n}"), shared if n % 2 else array) for n in range(6)]
    assert pool.starmap(tasks.write_and_die_first, items, 3, retries=1) == [total] * 6
    assert array.sum() == shared.sum() == total


# Where they lie


@pytest.mark.ours
def test_arguments_lie_in_the_pool_s_memory(method, make_pool):
    # A new pool: where tasks have written to what they got, it may be copied for the next ones.
    seen = make_pool(1, method=method).apply(tasks.look_at_array, (numbers(),))
    permissions, path = seen["mapping"]
    assert path.startswith("/memfd:") and permissions == "rw-p"


@pytest.mark.ours
def test_results_lie_in_the_pool_s_memory(shared_pool):
    for got in (
        shared_pool.apply(tasks.make_array, (MANY, 1.0)),
        shared_pool.apply(tasks.identity, ({"a": numbers()},))["a"],
        shared_pool.map(tasks.add_one, [numbers()])[0],
        next(shared_pool.imap(tasks.add_one, [numbers()])),
    ):
        assert support.in_pool_memory(got)


# Being kept


def test_results_outlive_their_pool(method):
    for end in ("close", "terminate", "drop"):
        pool = make(2, method=method)
        kept = pool.apply(tasks.make_array, (MANY, 3.0))
        several = pool.map(tasks.add_one, [numbers()] * 4)
        part = pool.apply(tasks.make_array, (MANY, 5.0))[1000:2000]
        if end != "drop":
            getattr(pool, end)()
            pool.join()
        else:
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                del pool
                gc.collect()
        other = make(2, method=method)
        other.map(tasks.make_array_of, range(20))
        assert kept.sum() == 3.0 * MANY
        assert part.sum() == 5000.0
        for array in several:
            assert np.array_equal(array, numbers() + 1)
        kept[...] = 4.0
        assert kept.sum() == 4.0 * MANY
        other.terminate()
        other.join()
    gc.collect()


def test_many_results_are_kept(fork_pool):
    kept = [fork_pool.apply(tasks.make_array, (20_000, float(n))) for n in range(300)]
    assert [(a[0], a[-1]) for a in kept] == [(n, n) for n in range(300)]
    del kept[::2]
    more = [fork_pool.apply(tasks.make_array, (20_000, -1.0)) for n in range(300)]
    assert [(a[0], a[-1]) for a in kept] == [(n, n) for n in range(1, 300, 2)]
    assert all(a.sum() == -20_000 for a in more)


@pytest.mark.ours
def test_memory_is_given_back(make_pool):
    """A hundred times 40 MB does not need 4 GB: what is let go is used again."""
    pool = make_pool(2)
    for n in range(100):
        array = pool.apply(tasks.make_array, (5_000_000, float(n)))
        assert array[-1] == n
        del array
    held = mapped_pages()
    assert held < 600 << 20, held


def mapped_pages():
    """Bytes of shared memory that exist, whoever maps them."""
    total = 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.startswith("Pss:"):
            total += int(line.split()[1]) * 1024
    return total


def test_a_slice_keeps_all(fork_pool):
    part = fork_pool.apply(tasks.make_array, (MANY, 3.0))[5:10]
    for n in range(50):
        fork_pool.apply(tasks.make_array, (MANY, float(n)))
    assert list(part) == [3.0] * 5


def test_workers_may_keep_their_arguments(make_pool, method):
    pool = make_pool(1, method=method)
    for n in range(10):
        pool.apply(tasks.keep, (np.full(MANY, n, dtype="f8"),))
    for _ in range(50):
        # What was given back is used again.
        pool.apply(tasks.write_all, (np.full(MANY, -5.0), -6.0))
    assert pool.apply(tasks.kept_total)[1] == [float(n * MANY) for n in range(10)]


def test_workers_may_keep_parts_of_their_arguments(make_pool):
    pool = make_pool(1)
    for n in range(5):
        pool.apply(keep_part, (np.full(MANY, n, dtype="f8"),))
    pool.map(keep_part, [np.full(MANY, n, dtype="f8") for n in range(5, 10)], 2)
    for _ in range(50):
        pool.apply(tasks.write_all, (np.full(MANY, -5.0), -6.0))
    assert pool.apply(tasks.kept_total)[1] == [float(n * 10) for n in range(10)]


def keep_part(array):
    tasks.kept.append(array[100:110])


def test_workers_may_keep_what_they_return(make_pool):
    pool = make_pool(1)
    first = pool.apply(keep_and_return, (MANY, 1.0))
    for _n in range(20):
        pool.apply(tasks.make_array, (MANY, -1.0))
    assert pool.apply(tasks.kept_total)[1] == [float(MANY)]
    assert first.sum() == float(MANY)
    pool.apply(write_kept, (9.0,))
    assert first.sum() == float(MANY)


def keep_and_return(count, value):
    array = np.full(count, value)
    tasks.kept.append(array)
    return array


def write_kept(value):
    for array in tasks.kept:
        array[...] = value


def test_a_generator_in_a_worker_keeps_its_argument(make_pool):
    """Something else than a list: a thread that goes on after the task."""
    pool = make_pool(1)
    pool.apply(start_reader, (np.full(MANY, 2.0),))
    for _n in range(50):
        pool.apply(tasks.write_all, (np.full(MANY, -5.0), -6.0))
    assert pool.apply(read_results) == [2.0 * MANY]


def start_reader(array):
    go_on = threading.Event()
    done = []
    thread = threading.Thread(target=lambda: (go_on.wait(), done.append(float(array.sum()))), daemon=True)
    thread.start()
    tasks.kept.append((go_on, done, thread))


def read_results():
    go_on, done, thread = tasks.kept[-1]
    go_on.set()
    thread.join()
    return done


def test_the_caller_may_write_at_once(fork_pool):
    """What is sent is what it was at the call, whatever the caller does to its array then."""
    array = np.full(MANY, 1.0)
    blocked = [fork_pool.apply_async(tasks.nap, (0.2,)) for _ in range(2)]
    result = fork_pool.apply_async(tasks.total, (array,))
    array[...] = 5.0
    assert result.get() in (1.0 * MANY, 5.0 * MANY) if not support.OURS else result.get() == 1.0 * MANY
    for other in blocked:
        other.get()


def test_results_in_threads(shared_pool):
    errors = []

    def work(number):
        try:
            for n in range(20):
                array = np.full(50_000 + number, number * 100 + n, dtype="f8")
                got = shared_pool.apply(tasks.add_one, (array,))
                assert got.shape == array.shape and got[0] == got[-1] == number * 100 + n + 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert not errors


# Other buffers


@pytest.mark.parametrize("size", [0, 100, 5000, 70_000, 2_000_000])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes(shared_pool, kind, size):
    value = kind(i % 251 for i in range(size))
    got = shared_pool.apply(tasks.identity, (value,))
    assert type(got) is kind and got == value
    assert shared_pool.apply(tasks.describe_buffer, (value,)) == (
        kind.__name__,
        size,
        bytes(value[:3]),
        bytes(value[-3:]),
    )
    assert shared_pool.map(len, [value] * 5) == [size] * 5


def test_bytearrays_may_grow(fork_pool):
    got = fork_pool.apply(tasks.identity, (bytearray(1_000_000),))
    got += b"more"
    got[0] = 7
    assert len(got) == 1_000_004
    assert fork_pool.apply(grow, (bytearray(1_000_000),)) == 1_000_004


def grow(value):
    value += b"more"
    value[0] = 255
    return len(value)


@pytest.mark.ours
@pytest.mark.parametrize("size", [10, 2_000_000])
def test_memoryviews(shared_pool, size):
    value = memoryview(bytes(i % 251 for i in range(size)))
    got = shared_pool.apply(tasks.identity, (value,))
    assert bytes(got) == bytes(value)
    assert shared_pool.apply(len, (value,)) == size


@pytest.mark.ours
@pytest.mark.parametrize("size", [10, 300_000])
def test_pickle_buffers(fork_pool, size):
    data = bytearray(i % 251 for i in range(size))
    got = fork_pool.apply(bytes, (pickle.PickleBuffer(data),))
    assert got == data


def test_array_arrays(fork_pool):
    import array

    value = array.array("d", range(100_000))
    got = fork_pool.apply(tasks.identity, (value,))
    assert got == value and got.typecode == "d"


def test_arrow(shared_pool):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": list(range(100_000)), "b": [str(n) for n in range(100_000)]})
    got = shared_pool.apply(tasks.identity, (table,))
    assert got.equals(table)
    assert shared_pool.apply(arrow_sum, (table,)) == sum(range(100_000))
    kept = [shared_pool.apply(tasks.identity, (table,)) for _ in range(5)]
    assert all(other.equals(table) for other in kept)


def arrow_sum(table):
    return sum(table["a"].to_pylist())


def test_data_frames(fork_pool):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.arange(100_000), "b": np.arange(100_000) * 0.5})
    assert fork_pool.apply(tasks.identity, (frame,)).equals(frame)


# Arrays made in the pool's memory


@pytest.mark.ours
@pytest.mark.parametrize("shape", [5, (5,), (), 0, (0, 3), (1000, 300), 1_000_000])
@pytest.mark.parametrize("dtype", ["f8", "i2", np.uint8, [("a", "i4"), ("b", "f8")]])
def test_empty(fork_pool, shape, dtype):
    import ringpool

    for make_empty in (fork_pool.empty, ringpool.empty):
        array = make_empty(shape, dtype)
        assert array.shape == np.empty(shape, dtype).shape
        assert array.dtype == np.dtype(dtype)
        assert array.flags.writeable and array.flags.c_contiguous
        raw = array.reshape(-1).view("u1") if array.size else array
        raw[...] = np.zeros((), raw.dtype)
        got = fork_pool.apply(tasks.identity, (array,))
        assert got.tobytes() == array.tobytes() and got.shape == array.shape


@pytest.mark.ours
def test_empty_is_in_the_pool_s_memory(make_pool, method):
    pool = make_pool(2, method=method)
    array = pool.empty(MANY)
    assert support.in_pool_memory(array)
    array[:] = 2.0
    assert pool.apply(tasks.total, (array,)) == 2.0 * MANY
    array[:] = 3.0
    assert pool.apply(tasks.total, (array,)) == 3.0 * MANY
    assert pool.map(tasks.total, [array] * 10) == [3.0 * MANY] * 10


@pytest.mark.ours
@pytest.mark.parametrize(
    "call",
    [lambda p: p.empty(-1), lambda p: p.empty((5, -1)), lambda p: p.empty(5, object), lambda p: p.empty("a")],
)
def test_empty_of_nonsense(fork_pool, call):
    with pytest.raises((ValueError, TypeError)):
        call(fork_pool)


@pytest.mark.ours
def test_empty_that_is_too_large(fork_pool):
    import ringpool

    with pytest.raises((ringpool.PoolFull, MemoryError)):
        fork_pool.empty(1 << 50)
    assert fork_pool.apply(tasks.square, (3,)) == 9


@pytest.mark.ours
def test_share(shared_pool):
    for name, array in views().items():
        shared = shared_pool.share(array)
        assert np.array_equal(shared, array), name
        assert shared.dtype == array.dtype and shared.shape == array.shape
        assert np.array_equal(shared_pool.apply(tasks.identity, (shared,)), array), name


@pytest.mark.ours
def test_slices_of_shared_arrays(make_pool, method):
    shared_pool = make_pool(2, method=method)
    shared = shared_pool.share(np.arange(400_000.0).reshape(400, 1000))
    parts = [shared[n : n + 100] for n in range(0, 400, 100)]
    assert shared_pool.map(tasks.total, parts) == [float(part.sum()) for part in parts]
    odd = [shared[:, ::2], shared.T, shared[3], shared[::-1]]
    assert shared_pool.map(tasks.total, odd) == [float(part.sum()) for part in odd]
    seen = shared_pool.apply(tasks.look_at_array, (parts[1],))
    assert seen["mapping"][1].startswith("/memfd:") and seen["writeable"]


@pytest.mark.ours
def test_workers_do_not_write_into_shared_arrays(shared_pool):
    shared = shared_pool.share(np.full(MANY, 1.0))
    for _ in range(3):
        assert shared_pool.apply(tasks.write_all, (shared, 9.0)) == (True, float(MANY), 9.0 * MANY)
    assert shared.sum() == float(MANY)


@pytest.mark.ours
def test_shared_arrays_kept_by_workers(make_pool):
    pool = make_pool(1)
    shared = pool.share(np.full(MANY, 1.0))
    pool.apply(tasks.keep, (shared,))
    del shared
    gc.collect()
    for _ in range(10):
        other = pool.share(np.full(MANY, -1.0))
        pool.apply(tasks.total, (other,))
        del other
    assert pool.apply(tasks.kept_total)[1] == [float(MANY)]


@pytest.mark.ours
def test_shared_arrays_outlive_their_pool():
    for end in ("close", "terminate"):
        pool = make(1)
        array = pool.share(np.full(MANY, 1.0))
        part = array[10:20]
        getattr(pool, end)()
        pool.join()
        del pool, array
        gc.collect()
        assert list(part) == [1.0] * 10
        part[:] = 2.0
        with make(1) as other:
            assert other.apply(tasks.total, (part,)) == 20.0


@pytest.mark.ours
def test_shared_arrays_of_another_pool():
    with make(1) as first, make(1) as second:
        array = first.share(np.full(MANY, 1.0))
        assert second.apply(tasks.total, (array,)) == float(MANY)
        assert first.apply(tasks.total, (array,)) == float(MANY)
        assert np.array_equal(second.apply(tasks.identity, (array,)), array)
        result = first.apply(tasks.make_array, (MANY, 2.0))
        assert second.apply(tasks.total, (result,)) == 2.0 * MANY


@pytest.mark.ours
def test_results_are_arguments_again(shared_pool):
    array = shared_pool.apply(tasks.make_array, (MANY, 0.0))
    for _n in range(20):
        array = shared_pool.apply(tasks.add_one, (array,))
    assert array.sum() == 20.0 * MANY


@pytest.mark.ours
def test_empty_in_a_worker(method, make_pool):
    pool = make_pool(2, method=method)
    got = pool.map(empty_and_fill, [1.0, 2.0, 3.0, 4.0], 1)
    assert [array.sum() for array in got] == [n * MANY for n in (1.0, 2.0, 3.0, 4.0)]
    assert all(support.in_pool_memory(array) for array in got)
    pool.terminate()
    assert [array[-1] for array in got] == [1.0, 2.0, 3.0, 4.0]


def empty_and_fill(value):
    import ringpool

    array = ringpool.empty(MANY)
    array[:] = value
    return array


@pytest.mark.ours
def test_empty_in_a_worker_that_is_kept_and_changed(make_pool):
    pool = make_pool(1)
    first = pool.apply(empty_fill_and_keep, (1.0,))
    pool.apply(write_kept, (5.0,))
    second = pool.apply(return_kept)
    pool.apply(write_kept, (6.0,))
    for _ in range(10):
        pool.apply(empty_and_fill, (-1.0,))
    assert first.sum() == 1.0 * MANY
    assert second.sum() == 5.0 * MANY
    assert pool.apply(tasks.kept_total)[1] == [6.0 * MANY]


def empty_fill_and_keep(value):
    array = empty_and_fill(value)
    tasks.kept.append(array)
    return array


def return_kept():
    return tasks.kept[-1]


@pytest.mark.ours
def test_empty_without_a_pool(tmp_path):
    code, out, err = run(
        tmp_path / "program.py",
        "import ringpool\na = ringpool.empty((2, 3), 'i4')\na[:] = 1\nprint(a.sum(), a.shape)\n",
    )
    assert (code, out) == (0, "6 (2, 3)\n"), err


@pytest.mark.ours
def test_a_dead_worker_gives_back_its_memory(make_pool):
    pool = make_pool(1)
    for _ in range(6):
        pool.apply(empty_fill_and_keep, (1.0,))
        with contextlib.suppress(Exception):
            pool.apply(tasks.killed, (signal.SIGKILL,))
    assert pool.apply(tasks.make_array, (MANY, 1.0)).sum() == MANY


@pytest.mark.ours
def test_references_to_sent_arrays_are_let_go(make_pool):
    pool = make_pool(1)
    array = numbers()
    seen = weakref.ref(array)
    pool.apply(tasks.total, (array,))
    pool.map(tasks.total, [array])
    list(pool.imap(tasks.total, [array]))
    del array
    gc.collect()
    assert support.eventually(lambda: seen() is None)


@pytest.mark.ours
def test_views_in_forked_children(make_pool):
    """A forked child sees the arrays that its parent has, as it sees all else."""
    import os

    pool = make_pool(1)
    array = pool.apply(tasks.make_array, (MANY, 3.0))
    shared = pool.share(np.full(MANY, 4.0))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # What was made by `share` is memory of the pool, of which a forked child keeps nothing.
            status = 0 if array.sum() == 3.0 * MANY else 2
            array[...] = 5.0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert array.sum() == 3.0 * MANY and shared.sum() == 4.0 * MANY
