"""Nested data of every kind, made by hypothesis, comes back as pickle would give it."""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import pathlib
import pickle
import uuid

import pytest
import support
import tasks

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

settings.register_profile(
    "pool",
    deadline=None,
    max_examples=150,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)
settings.load_profile("pool")


@dataclasses.dataclass
class Point:
    x: object
    y: object = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    name: str
    values: tuple = ()


@dataclasses.dataclass(slots=True)
class Slotted:
    left: object
    right: object


class Colour(enum.Enum):
    RED = 1
    GREEN = "green"


class Flags(enum.IntFlag):
    A = 1
    B = 2


Pair = collections.namedtuple("Pair", "first second")

integers = st.one_of(
    st.integers(),
    st.integers(-(2**63) - 2, -(2**63) + 2),
    st.integers(2**63 - 2, 2**64 + 2),
    st.integers(-(2**31) - 2, -(2**31) + 2),
    st.integers(-(2**3000), 2**3000),
    st.sampled_from([2**n + k for n in (7, 8, 15, 16, 31, 32, 63, 64, 127) for k in (-1, 0, 1)]),
)
floats = st.one_of(
    st.floats(), st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1.7976931348623157e308])
)
texts = st.one_of(
    st.text(),
    st.text(st.characters(codec=None, categories=None)),  # surrogates, too
    st.text(alphabet="\ud800\udfffaé\U0001f600\0", max_size=20),
)
hashables = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        integers,
        floats.filter(lambda value: value == value),
        texts,
        st.binary(),
        st.sampled_from(list(Colour)),
        st.decimals(allow_nan=False),
        st.fractions(),
        st.dates(),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, inner),
        st.frozensets(inner, max_size=4),
        st.builds(Frozen, texts, st.tuples(inner)),
        st.builds(Pair, inner, inner),
    ),
    max_leaves=6,
)
leaves = st.one_of(
    hashables,
    floats,
    st.complex_numbers(),
    st.binary(max_size=5000).map(bytearray),
    st.datetimes(timezones=st.just(datetime.UTC)),
    st.timedeltas(),
    st.uuids(),
    st.sampled_from(
        [Ellipsis, NotImplemented, int, dict, len, Point, Flags.A | Flags.B, range(5), slice(1, None, 2)]
    ),
    st.just(pathlib.PurePosixPath("a/b")),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.tuples(inner, inner, inner),
        st.dictionaries(hashables, inner, max_size=4),
        st.sets(hashables, max_size=4),
        st.builds(Point, inner, inner),
        st.builds(Slotted, inner, inner),
        st.lists(inner, max_size=3).map(collections.deque),
        st.dictionaries(texts, inner, max_size=3).map(collections.OrderedDict),
        st.dictionaries(texts, inner, max_size=3).map(lambda d: collections.defaultdict(list, d)),
    ),
    max_leaves=25,
)


def same(left, right, pairs=None):
    """Equal all the way down: types, bits of floats, order of dicts, and which objects are one."""
    pairs = {} if pairs is None else pairs
    if id(left) in pairs:
        return pairs[id(left)][1] is right
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, dict, set, bytearray, collections.deque, Point, Slotted)):
        pairs[id(left)] = (left, right)
    if isinstance(left, float):
        return repr(left) == repr(right) and math.copysign(1, left) == math.copysign(1, right)
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, (list, tuple, collections.deque)):
        return len(left) == len(right) and all(same(a, b, pairs) for a, b in zip(left, right, strict=True))
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            same(a, b, pairs) and same(left[a], right[b], pairs) for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, (set, frozenset)):
        return left == right and sorted(map(repr, left)) == sorted(map(repr, right))
    if dataclasses.is_dataclass(left) and not isinstance(left, type):
        return all(
            same(getattr(left, f.name), getattr(right, f.name), pairs) for f in dataclasses.fields(left)
        )
    return left == right


def test_the_comparison_itself():
    """It must see what is different, or the tests below show nothing."""
    one = [1]
    assert same([one, one], pickle.loads(pickle.dumps([one, one])))
    assert not same([one, one], [[1], [1]])
    assert not same(0.0, -0.0) and not same(1, 1.0) and not same(1, True) and not same([1], [1, 2])
    assert same(math.nan, float("nan"))
    assert not same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not same(Point(1), Point(2)) and not same(b"a", bytearray(b"a"))


def tame(value):
    """Whether pickle itself gives it back, so that what is left is the pool's own doing."""
    try:
        return same(value, pickle.loads(pickle.dumps(value, 5)))
    except Exception:
        return False


@given(value=values)
def test_arguments_and_results(fork_pool, value):
    hypothesis.assume(tame(value))
    assert same(value, fork_pool.apply(tasks.identity, (value,)))


@given(items=st.lists(values, max_size=8), chunksize=st.sampled_from([None, 1, 2, 3, 100]))
def test_maps(fork_pool, items, chunksize):
    items = [item for item in items if tame(item)]
    got = fork_pool.map(tasks.identity, items, chunksize)
    assert type(got) is list and len(got) == len(items)
    assert all(same(a, b) for a, b in zip(items, got, strict=True))


@given(
    items=st.lists(values, max_size=6),
    name=st.sampled_from(["imap", "imap_unordered"]),
    chunksize=st.integers(1, 4),
)
def test_iterators(fork_pool, items, name, chunksize):
    items = [item for item in items if tame(item)]
    got = sorted(
        getattr(fork_pool, name)(tasks.identity, list(enumerate(items)), chunksize), key=lambda pair: pair[0]
    )
    assert [n for n, _ in got] == list(range(len(items)))
    assert all(same(a, b) for a, (_, b) in zip(items, got, strict=True))


@given(args=st.lists(values, max_size=4), kwds=st.dictionaries(texts, values, max_size=3))
def test_arguments_by_position_and_by_name(fork_pool, args, kwds):
    hypothesis.assume(tame((args, kwds)))
    got = fork_pool.apply(tasks.collect, args, kwds)
    assert same((tuple(args), kwds), got)


@given(
    items=st.lists(st.one_of(integers, floats, texts, st.binary(), st.booleans(), st.none()), max_size=300)
)
def test_maps_of_plain_values(fork_pool, items):
    got = fork_pool.map(tasks.identity, items)
    assert len(got) == len(items) and all(same(a, b) for a, b in zip(items, got, strict=True))
    results = [fork_pool.apply_async(tasks.identity, (item,)) for item in items[:30]]
    assert all(same(a, r.get()) for a, r in zip(items, results, strict=True))


@given(
    start=integers,
    step=st.integers(-(2**65), 2**65).filter(bool),
    count=st.integers(0, 40),
    chunksize=st.sampled_from([None, 1, 7]),
)
def test_ranges(fork_pool, start, step, count, chunksize):
    items = range(start, start + step * count, step)
    assert fork_pool.map(tasks.identity, items, chunksize) == list(items)


@given(message=st.lists(values, max_size=3))
def test_exceptions(fork_pool, message):
    hypothesis.assume(tame(message))
    try:
        fork_pool.apply(raise_with, (message,))
    except LookupError as error:
        assert same(tuple(message), error.args)
    else:
        raise AssertionError("nothing was raised")


def raise_with(message):
    raise LookupError(*message)


@given(value=values)
def test_callbacks(fork_pool, value):
    hypothesis.assume(tame(value))
    got = []
    fork_pool.apply_async(tasks.identity, (value,), callback=got.append).wait()
    assert same(value, got[0])


def recursive_values():
    loop = []
    loop.append(loop)
    yield loop
    cycle = {"a": []}
    cycle["a"].append(cycle)
    yield cycle
    point = Point(1)
    point.y = [point]
    yield point
    shared = [1, 2]
    yield {"a": shared, "b": shared, "c": (shared, shared)}
    deep = ()
    for _ in range(150):
        deep = (deep,)
    yield deep


@pytest.mark.parametrize("value", recursive_values(), ids=["loop", "cycle", "point", "shared", "deep"])
def test_aliases_and_recursion(shared_pool, value):
    for got in (
        shared_pool.apply(tasks.identity, (value,)),
        shared_pool.map(tasks.identity, [value])[0],
        next(shared_pool.imap(tasks.identity, [value])),
    ):
        assert same(value, got)


def test_aliases_across_arguments(shared_pool):
    value = [1]
    assert shared_pool.apply(tasks.same_object, (value, value))
    (left, right), kwds = shared_pool.apply(tasks.collect, (value, value), {"third": value})
    assert left is right is kwds["third"]


@given(data=st.data())
def test_numpy_arrays(fork_pool, data):
    numpy = pytest.importorskip("numpy")
    from hypothesis.extra import numpy as hnp

    array = data.draw(hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_side=40, min_side=0)))
    got = fork_pool.apply(tasks.identity, (array,))
    if support.OURS:
        # What numpy itself makes of it: it turns the bytes of some small arrays around.
        assert got.dtype == pickle.loads(pickle.dumps(array, 5)).dtype
    assert got.shape == array.shape
    numpy.testing.assert_array_equal(got, array)


def test_pickles_are_made_once(shared_pool):
    """A value is pickled in the caller, not in some other process."""
    import os

    got = shared_pool.apply(tasks.identity, (tasks.Seen(),))
    assert got.where != os.getpid()  # on its way back: in the worker
    assert uuid.UUID(int=5) == shared_pool.apply(tasks.identity, (uuid.UUID(int=5),))
    assert shared_pool.apply(tasks.identity, (decimal.Decimal("1.10"),)).as_tuple().digits == (1, 1, 0)
    assert shared_pool.apply(tasks.identity, (fractions.Fraction(1, 3),)) == fractions.Fraction(1, 3)
