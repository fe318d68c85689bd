"""The eight ways to submit, their defaults, and what they check when they are called."""

import functools
import itertools
import operator
import threading
from collections import deque

import pytest
import support
import tasks

SQUARES = [n * n for n in range(100)]


def test_apply(shared_pool):
    assert shared_pool.apply(tasks.square, (7,)) == 49
    assert shared_pool.apply(tasks.nothing) is None
    assert shared_pool.apply(tasks.collect, (1, 2), {"a": 3}) == ((1, 2), {"a": 3})
    assert shared_pool.apply(tasks.collect, kwds={"a": 3}) == ((), {"a": 3})


def test_apply_by_keywords(fork_pool):
    assert fork_pool.apply(func=tasks.collect, args=(1,), kwds={"b": 2}) == ((1,), {"b": 2})
    result = fork_pool.apply_async(
        func=tasks.collect, args=(1,), kwds={"b": 2}, callback=None, error_callback=None
    )
    assert result.get() == ((1,), {"b": 2})


@pytest.mark.parametrize("args", [[1, 2], "12", range(2), {3: None, 4: None}, b"ab"])
def test_any_iterable_as_arguments(fork_pool, args):
    assert fork_pool.apply(tasks.collect, args) == (tuple(args), {})


@pytest.mark.parametrize("args", [5, None])
def test_arguments_that_cannot_be_iterated(fork_pool, args):
    with pytest.raises(TypeError):
        fork_pool.apply(tasks.collect, args)
    assert fork_pool.apply(tasks.square, (2,)) == 4


def test_keywords_that_are_no_strings(fork_pool):
    with pytest.raises(TypeError):
        fork_pool.apply(tasks.collect, (), {1: 2})


def test_keywords_named_like_the_pool_s_own(fork_pool):
    names = dict.fromkeys(["func", "args", "kwds", "self", "fn", "callback", "retries", "timeout"], 1)
    assert fork_pool.apply(tasks.collect, (), names) == ((), names)


def test_arguments_are_taken_when_the_call_is_made(fork_pool):
    fork_pool.map(tasks.nap, [0.05] * 2, chunksize=1)
    values = [1, 2, 3]
    blocker = [fork_pool.apply_async(tasks.nap, (0.2,)) for _ in range(2)]
    result = fork_pool.apply(tasks.identity, (values,))
    assert result == values and result is not values
    for r in blocker:
        r.get()


def test_apply_async(shared_pool):
    results = [shared_pool.apply_async(tasks.square, (n,)) for n in range(100)]
    assert [r.get() for r in results] == SQUARES


def test_map(shared_pool):
    assert shared_pool.map(tasks.square, range(100)) == SQUARES
    assert shared_pool.map(tasks.square, list(range(100)), 7) == SQUARES
    assert shared_pool.map(tasks.square, tuple(range(100)), chunksize=1000) == SQUARES


@pytest.mark.parametrize("chunksize", [None, 1, 2, 3, 50, 99, 100, 101, 10**6])
def test_map_with_every_chunk_size(fork_pool, chunksize):
    assert fork_pool.map(tasks.square, range(100), chunksize) == SQUARES


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 15, 16, 17, 1000])
def test_map_of_every_length(fork_pool, count):
    assert fork_pool.map(tasks.square, range(count)) == [n * n for n in range(count)]


@pytest.mark.parametrize(
    "iterable",
    [
        range(5, 50, 3),
        range(50, 5, -3),
        range(2**70, 2**70 + 9),
        [3, 1, 2],
        (3, 1, 2),
        {3, 1, 2},
        {3: "a", 1: "b"},
        "text",
        b"bytes",
        bytearray(b"bytes"),
        deque([3, 1, 2]),
        itertools.islice(itertools.count(), 20),
        map(abs, [-1, -2]),
        [None] * 10,
        [True, False, 0.5, "a", b"b", (1,), None],
    ],
    ids=lambda iterable: type(iterable).__name__,
)
def test_map_of_every_kind_of_iterable(fork_pool, iterable):
    items = iterable if hasattr(iterable, "__len__") else list(iterable)
    source = items if hasattr(iterable, "__len__") else iter(items)
    got = fork_pool.map(tasks.describe, source)
    assert got == [tasks.describe(item) for item in items]


def test_map_of_a_sequence_without_iter(fork_pool):
    class Old:
        def __len__(self):
            return 5

        def __getitem__(self, place):
            if place >= 5:
                raise IndexError
            return place * 10

    assert fork_pool.map(tasks.identity, Old()) == [0, 10, 20, 30, 40]


def test_map_of_what_cannot_be_iterated(fork_pool):
    for method in (fork_pool.map, fork_pool.map_async, fork_pool.starmap, fork_pool.starmap_async):
        with pytest.raises(TypeError):
            method(tasks.identity, 5)


def test_map_of_many(fork_pool):
    assert fork_pool.map(tasks.identity, range(50_000)) == list(range(50_000))


def test_map_async(shared_pool):
    assert shared_pool.map_async(tasks.square, range(100)).get() == SQUARES


def test_starmap(shared_pool):
    pairs = list(zip(range(50), range(50, 100), strict=True))
    assert shared_pool.starmap(operator.add, pairs) == [a + b for a, b in pairs]
    assert shared_pool.starmap_async(operator.add, iter(pairs), 3).get() == [a + b for a, b in pairs]
    assert shared_pool.starmap(tasks.collect, [(), (1,), [1, 2], "abc"]) == [
        ((), {}),
        ((1,), {}),
        ((1, 2), {}),
        (("a", "b", "c"), {}),
    ]


def test_starmap_of_what_are_no_arguments(fork_pool):
    with pytest.raises(TypeError):
        fork_pool.starmap(tasks.identity, [(1,), 2, (3,)], chunksize=1)
    assert fork_pool.apply(tasks.square, (2,)) == 4


def test_imap(shared_pool):
    assert list(shared_pool.imap(tasks.square, range(100))) == SQUARES
    assert list(shared_pool.imap(tasks.square, iter(range(100)), 7)) == SQUARES
    assert list(shared_pool.imap(tasks.square, [], 7)) == []


def test_imap_unordered(shared_pool):
    assert sorted(shared_pool.imap_unordered(tasks.square, range(100))) == SQUARES
    assert sorted(shared_pool.imap_unordered(tasks.square, iter(range(100)), chunksize=7)) == SQUARES
    assert list(shared_pool.imap_unordered(tasks.square, [])) == []


def test_by_keywords(fork_pool):
    assert fork_pool.map(func=tasks.square, iterable=[2], chunksize=1) == [4]
    assert fork_pool.starmap(func=tasks.add, iterable=[(1, 2)], chunksize=1) == [3]
    assert list(fork_pool.imap(func=tasks.square, iterable=[2], chunksize=1)) == [4]
    assert list(fork_pool.imap_unordered(func=tasks.square, iterable=[2], chunksize=1)) == [4]
    for method in (fork_pool.map_async, fork_pool.starmap_async):
        items = [2] if method == fork_pool.map_async else [(2,)]
        result = method(func=tasks.square, iterable=items, chunksize=1, callback=None, error_callback=None)
        assert result.get() == [4]


def test_positional_callbacks(fork_pool):
    got = []
    fork_pool.apply_async(tasks.square, (2,), {}, got.append, got.append).get()
    fork_pool.map_async(tasks.square, [2], 1, got.append, got.append).get()
    fork_pool.starmap_async(tasks.square, [(2,)], 1, got.append, got.append).get()
    assert support.eventually(lambda: len(got) == 3)
    assert got == [4, [4], [4]]


# Default chunk sizes: seen from where the pieces run


def seen_chunks(pool, items):
    """The lengths of the chunks of a map, from a worker that is replaced after each."""
    pids = pool.map(tasks.pid, items)
    return [len(list(group)) for _, group in itertools.groupby(pids)]


@pytest.mark.parametrize("count", [3, 4, 5, 8, 11])
def test_default_chunksize(make_pool, count):
    pool = make_pool(1, maxtasksperchild=1)
    size, rest = divmod(count, 4)
    size += 1 if rest else 0
    expected = [size] * (count // size) + ([count % size] if count % size else [])
    assert seen_chunks(pool, range(count)) == expected


# Empty input


def test_empty_maps(shared_pool):
    called = []
    for method in (shared_pool.map_async, shared_pool.starmap_async):
        for iterable in ([], (), iter(()), range(0), {}, ""):
            result = method(tasks.identity, iterable, callback=called.append, error_callback=called.append)
            assert result.ready() and result.successful()
            assert result.get() == []
    assert called == []
    assert shared_pool.map(tasks.identity, []) == shared_pool.starmap(tasks.identity, []) == []


def test_empty_map_with_a_chunk_size(fork_pool):
    assert fork_pool.map(tasks.identity, [], 5) == []


# Bad chunk sizes


@pytest.mark.parametrize("name", ["imap", "imap_unordered"])
@pytest.mark.parametrize("size", [0, -1, -100])
def test_bad_chunksize_of_imap(fork_pool, name, size):
    with pytest.raises(ValueError, match=rf"^Chunksize must be 1\+, not {size}$"):
        getattr(fork_pool, name)(tasks.identity, [1], size)


def test_chunksize_of_another_type(fork_pool):
    with pytest.raises(TypeError):
        fork_pool.map(tasks.identity, [1, 2], "a")
    assert fork_pool.apply(tasks.square, (2,)) == 4


@pytest.mark.ours
@pytest.mark.parametrize("name", ["map", "starmap", "map_async", "starmap_async"])
@pytest.mark.parametrize("size", [0, -1])
def test_chunksize_of_nothing_is_an_error(fork_pool, name, size):
    with pytest.raises(ValueError, match=r"[Cc]hunksize"):
        getattr(fork_pool, name)(tasks.identity, [(1,), (2,)], size)


@pytest.mark.ours
@pytest.mark.parametrize("name", ["map", "starmap", "imap", "imap_unordered"])
def test_chunksize_of_a_fraction_is_an_error(fork_pool, name):
    with pytest.raises(TypeError):
        list(getattr(fork_pool, name)(tasks.identity, [(1,), (2,), (3,)], 2.5))
    assert fork_pool.apply(tasks.square, (2,)) == 4


# Iterables that fail


def broken(count):
    yield from range(count)
    raise LookupError("broken iterable")


class Short:
    """Says that it is longer than it is."""

    def __init__(self, said, items):
        self.said, self.items = said, items

    def __len__(self):
        return self.said

    def __iter__(self):
        return iter(self.items)


class BrokenWithLength(Short):
    def __iter__(self):
        return broken(self.items)


@pytest.mark.parametrize("name", ["map", "map_async", "starmap", "starmap_async"])
def test_a_generator_that_raises_does_so_in_the_caller(shared_pool, name):
    with pytest.raises(LookupError, match="broken iterable") as caught:
        getattr(shared_pool, name)(tasks.identity, broken(5))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("chunksize", [1, 2])
def test_imap_gives_what_came_before_the_iterable_failed(shared_pool, chunksize):
    iterator = shared_pool.imap(tasks.square, broken(4), chunksize)
    assert [next(iterator) for _ in range(4)] == [0, 1, 4, 9]
    with pytest.raises(LookupError, match="broken iterable") as caught:
        next(iterator)
    assert caught.value.__cause__ is None
    with pytest.raises(StopIteration):
        next(iterator)


def test_imap_unordered_gives_an_iterable_s_error_some_time(shared_pool):
    iterator = shared_pool.imap_unordered(tasks.square, broken(4))
    values, errors = [], []
    while True:
        try:
            values.append(next(iterator))
        except StopIteration:
            break
        except LookupError as error:
            errors.append(error)
    assert sorted(values) == [0, 1, 4, 9]
    assert [str(error) for error in errors] == ["broken iterable"]
    assert errors[0].__cause__ is None


@pytest.mark.parametrize("name", ["imap", "imap_unordered"])
@pytest.mark.parametrize("chunksize", [1, 3])
def test_imap_of_an_iterable_that_fails_at_once(shared_pool, name, chunksize):
    iterator = getattr(shared_pool, name)(tasks.square, broken(0), chunksize)
    with pytest.raises(LookupError):
        next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)


def test_iterables_that_fail_in_iter_itself(fork_pool):
    class Never:
        def __iter__(self):
            raise LookupError("no iterator")

    for name in ("map", "starmap", "map_async"):
        with pytest.raises(LookupError):
            getattr(fork_pool, name)(tasks.identity, Never())
    assert fork_pool.apply(tasks.square, (2,)) == 4


@pytest.mark.ours
@pytest.mark.parametrize("chunksize", [None, 1, 3, 100])
@pytest.mark.parametrize(("said", "count"), [(10, 3), (10, 0), (3, 10), (1, 10), (0, 10)])
def test_a_length_that_is_wrong(fork_pool, chunksize, said, count):
    """Every item that comes has its result, whatever the length says; nothing waits for more."""
    expected = [n * n for n in range(count)]
    if said == 0:
        expected = []  # as with multiprocessing, it is not looked at
    assert fork_pool.map(tasks.square, Short(said, range(count)), chunksize) == expected


@pytest.mark.ours
@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_an_iterable_with_a_length_that_raises(fork_pool, chunksize):
    with pytest.raises(LookupError, match="broken iterable"):
        fork_pool.map(tasks.identity, BrokenWithLength(10, 4), chunksize)
    assert fork_pool.map(tasks.square, [1, 2]) == [1, 4]


def test_a_generator_in_use_is_an_ordinary_error(fork_pool):
    def generator():
        yield from fork_pool.map(tasks.square, [1, 2])
        yield 3

    assert list(fork_pool.imap(tasks.identity, list(generator()))) == [1, 4, 3]


# Functions


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (abs, -3, 3),
        (len, "four", 4),
        (int, "12", 12),
        (str.upper, "a", "A"),
        ("-".join, ["a", "b"], "a-b"),
        ([1, 2, 3].count, 2, 1),
        (functools.partial(tasks.add, 5), 1, 6),
        (operator.itemgetter(1), [1, 2], 2),
        (tasks.CallableThing(10), 1, 11),
        (tasks.CallableThing(10).method, 3, 30),
        (tasks.CallableThing.of_class, 3, ("CallableThing", 3)),
        (tasks.CallableThing.static, 3, -3),
        (dict.fromkeys, "a", {"a": None}),
    ],
    ids=str,
)
def test_functions_of_every_kind(shared_pool, function, value, expected):
    assert shared_pool.apply(function, (value,)) == expected
    assert shared_pool.map(function, [value] * 3) == [expected] * 3


def test_a_function_that_changes_between_calls(fork_pool):
    thing = tasks.CallableThing(1)
    first = fork_pool.map(thing, [1, 2])
    thing.base = 100
    assert first == [2, 3]
    assert fork_pool.map(thing, [1, 2]) == [101, 102]
    assert fork_pool.apply(thing, (1,)) == 101
    bound = [1]
    assert fork_pool.apply(bound.count, (2,)) == 0
    bound.append(2)
    assert fork_pool.apply(bound.count, (2,)) == 1


def test_what_is_no_function(shared_pool):
    with pytest.raises(TypeError, match="not callable"):
        shared_pool.apply(5)
    with pytest.raises(TypeError, match="not callable"):
        shared_pool.map("text", [1])
    assert shared_pool.apply(tasks.square, (2,)) == 4


def test_many_functions(fork_pool):
    things = [tasks.CallableThing(n) for n in range(3000)]
    assert [fork_pool.apply(thing, (1,)) for thing in things] == [n + 1 for n in range(3000)]
    assert [fork_pool.apply(thing, (2,)) for thing in things] == [n + 2 for n in range(3000)]


def test_functions_by_turns(shared_pool):
    results = []
    for n in range(200):
        results.append((shared_pool.apply_async(tasks.square, (n,)), n * n))
        results.append((shared_pool.apply_async(tasks.add, (n, 1)), n + 1))
        results.append((shared_pool.apply_async(abs, (-n,)), n))
    assert all(result.get() == expected for result, expected in results)


# Order and parallelism


def test_one_worker_works_in_order(make_pool, tmp_path):
    pool = make_pool(1)
    path = str(tmp_path / "order")
    for n in range(200):
        pool.apply_async(note, (path, n))
    pool.close()
    pool.join()
    with open(path) as file:
        assert [int(line) for line in file] == list(range(200))


def note(path, value):
    with open(path, "a") as file:
        file.write(f"{value}\n")


def test_two_workers_work_at_once(shared_pool, tmp_path):
    results = [shared_pool.apply_async(tasks.meet, (tmp_path, 2)) for _ in range(2)]
    assert len({result.get() for result in results}) == 2


def test_a_long_task_holds_up_no_other(shared_pool):
    long = shared_pool.apply_async(tasks.nap_and, (3, "long"))
    assert [shared_pool.apply(tasks.square, (n,)) for n in range(50)] == SQUARES[:50]
    assert not long.ready()
    assert long.get() == "long"


def test_a_map_takes_all_workers(make_pool, tmp_path):
    pool = make_pool(4)
    met = pool.map(functools.partial(tasks.meet, tmp_path), [4] * 4, chunksize=1)
    assert len(set(met)) == 4


def test_callbacks_may_submit(fork_pool):
    done = threading.Event()
    got = []

    def second(value):
        got.append(value)
        done.set()

    fork_pool.apply_async(
        tasks.square, (3,), callback=lambda v: fork_pool.apply_async(tasks.square, (v,), callback=second)
    )
    assert done.wait(20)
    assert got == [81]


# Values


@pytest.mark.parametrize("size", [0, 1, 100, 4095, 4096, 65_536, 1 << 20, 5 << 20])
def test_sizes(shared_pool, size):
    value = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert shared_pool.apply(tasks.identity, (value,)) == value
    assert shared_pool.apply(len, (value,)) == size


def test_large_values_in_maps(fork_pool):
    items = [bytes([n]) * 300_000 for n in range(40)]
    assert fork_pool.map(tasks.identity, items) == items
    assert list(fork_pool.imap(tasks.identity, items)) == items


def test_results_much_larger_than_arguments(shared_pool):
    assert shared_pool.apply(make_text, (20_000_000,)) == "é" * 20_000_000


def make_text(count):
    return "é" * count


def test_deeply_nested_values(fork_pool):
    value = []
    for _ in range(200):
        value = [value]
    assert fork_pool.apply(tasks.identity, (value,)) == value


# After the end


@pytest.mark.parametrize("end", ["close", "terminate"])
@pytest.mark.parametrize("empty", [True, False])
def test_nothing_may_be_submitted_after_the_end(make_pool, end, empty):
    pool = make_pool(1)
    getattr(pool, end)()
    items = [] if empty else [(1,)]
    calls = [
        lambda: pool.apply(tasks.square, (1,)),
        lambda: pool.apply_async(tasks.square, (1,)),
        lambda: pool.map(tasks.identity, items),
        lambda: pool.map_async(tasks.identity, items),
        lambda: pool.starmap(tasks.identity, items),
        lambda: pool.starmap_async(tasks.identity, items),
        lambda: pool.imap(tasks.identity, items),
        lambda: pool.imap(tasks.identity, items, 5),
        lambda: pool.imap_unordered(tasks.identity, items),
        lambda: pool.imap_unordered(tasks.identity, items, 5),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^Pool not running$"):
            call()
    pool.join()
    for call in calls:
        with pytest.raises(ValueError, match=r"^Pool not running$"):
            call()
