"""How functions travel: once, by name where that is possible, by cloudpickle where it is installed."""

import contextlib
import importlib.util
import pickle
from multiprocessing.pool import MaybeEncodingError

import pytest
import support
import tasks
from support import METHODS, run

CLOUDPICKLE = importlib.util.find_spec("cloudpickle") is not None
with_cloudpickle = pytest.mark.skipif(not CLOUDPICKLE or not support.OURS, reason="needs cloudpickle")


@pytest.mark.ours
def test_a_function_is_looked_up_once_in_each_worker(make_pool, tmp_path, method):
    path = tmp_path / "loads"
    pool = make_pool(2, tasks.count_lookups, (str(path),), method=method)
    function = tasks.counted
    for _ in range(20):
        assert pool.apply(function, (1,)) == 2
    assert pool.map(function, range(100), 1) == list(range(1, 101))
    assert list(pool.imap(function, range(100))) == list(range(1, 101))
    pids = path.read_text().split()
    assert 1 <= len(pids) <= 2
    assert len(set(pids)) == len(pids)


@pytest.mark.ours
def test_a_replaced_worker_gets_the_function_too(make_pool, tmp_path):
    path = tmp_path / "loads"
    pool = make_pool(1, tasks.count_lookups, (str(path),), maxtasksperchild=1)
    function = tasks.counted
    assert [pool.apply(function, (n,)) for n in range(5)] == list(range(1, 6))
    pids = path.read_text().split()
    assert len(pids) == len(set(pids)) == 5


def test_each_call_has_its_own_copy_of_a_callable_object(shared_pool):
    """As with multiprocessing, which pickles it with each task: what one changes in it, no other sees."""
    counter = Counter()
    assert [shared_pool.apply(counter) for _ in range(6)] == [1] * 6
    assert shared_pool.map(counter, range(6), 1) == [1] * 6
    assert counter.count == 0


class Counter:
    def __init__(self):
        self.count = 0

    def __call__(self, *_):
        self.count += 1
        return self.count


def test_a_function_that_does_not_pickle(shared_pool):
    if CLOUDPICKLE and support.OURS:
        pytest.skip("cloudpickle sends it")
    with pytest.raises((AttributeError, pickle.PicklingError)):
        shared_pool.apply(lambda: 5)


def test_a_callable_that_nothing_pickles(shared_pool):
    class Local:
        def __call__(self):
            return 5

        def __reduce__(self):
            raise TypeError("not this one")

    with pytest.raises(TypeError, match="not this one"):
        shared_pool.apply(Local())
    with pytest.raises(TypeError, match="not this one"):
        shared_pool.map(Local(), [1, 2])
    with pytest.raises(TypeError, match="not this one"):
        list(shared_pool.imap(Local(), [1, 2]))
    assert shared_pool.apply(tasks.square, (3,)) == 9


LAMBDAS = """
import sys
import support

factor = 3

class Thing:
    def __init__(self, value):
        self.value = value

def closure(base):
    def inner(value):
        return base + value
    return inner

if __name__ == "__main__":
    import multiprocessing
    with support.make(2, method=sys.argv[1]) as pool:
        print(pool.map(lambda n: n + 1, range(3)))
        print(pool.map(closure(10), range(3)))
        print(pool.apply(lambda *args, **kwds: (args, kwds), (1,), {"a": 2}))
        print(list(pool.imap(lambda n: n * factor, range(3))))
        print(pool.starmap(lambda a, b: a - b, [(3, 1)]))
        print(sorted(pool.imap_unordered(lambda n: -n, range(3))))
        print(pool.apply_async(lambda: 5).get())

        class Late:
            def __init__(self, value):
                self.value = value
            def double(self):
                return self.value * 2

        def late(value):
            return Late(value).double()

        print(pool.map(late, [1, 2]))
        print(pool.apply(Late(4).double))
"""


@with_cloudpickle
@pytest.mark.parametrize("method", METHODS)
def test_lambdas_and_closures(tmp_path, method):
    code, out, err = run(tmp_path / "program.py", LAMBDAS, method)
    assert code == 0, err
    assert out.splitlines() == [
        "[1, 2, 3]",
        "[10, 11, 12]",
        "((1,), {'a': 2})",
        "[0, 3, 6]",
        "[2]",
        "[-2, -1, 0]",
        "5",
        "[2, 4]",
        "8",
    ]


@with_cloudpickle
def test_lambdas_as_arguments(shared_pool):
    assert shared_pool.apply(call, (lambda n: n + 1, 5)) == 6
    assert shared_pool.map(call_with_five, [lambda n, k=k: n + k for k in range(3)]) == [5, 6, 7]


def call(function, *args):
    return function(*args)


def call_with_five(function):
    return function(5)


@with_cloudpickle
def test_lambdas_as_results(shared_pool):
    """As results, they need not come back, but nothing may hang."""
    with contextlib.suppress(MaybeEncodingError):
        assert shared_pool.apply(make_adder, (5,))(6) == 11
    assert shared_pool.apply(tasks.square, (3,)) == 9


def make_adder(base):
    return lambda value: base + value


@with_cloudpickle
def test_a_lambda_that_changes(fork_pool):
    base = 1

    def add(value):
        return base + value

    assert fork_pool.apply(add, (1,)) == 2
    base = 100
    assert fork_pool.apply(add, (1,)) == 101
    assert fork_pool.map(add, [1, 2]) == [101, 102]


@with_cloudpickle
def test_many_lambdas(fork_pool):
    for n in range(500):
        assert fork_pool.apply(lambda n=n: n) == n
    functions = [lambda value, n=n: value + n for n in range(500)]
    results = [fork_pool.apply_async(function, (1,)) for function in functions]
    assert [r.get() for r in results] == list(range(1, 501))


def test_without_cloudpickle(tmp_path):
    """It is an extra: where it is not installed, multiprocessing's errors come, and nothing hangs."""
    text = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "cloudpickle":
            raise ModuleNotFoundError("No module named 'cloudpickle'", name="cloudpickle")
sys.meta_path.insert(0, Refuse())
import pickle
import support, tasks
def double(value):
    return value * 2
if __name__ == "__main__":
    with support.make(2, method=sys.argv[1]) as pool:
        print(pool.map(double, [1, 2]))
        for call in (
            lambda: pool.apply(lambda: 5),
            lambda: pool.apply_async(lambda: 5).get(),
            lambda: pool.map(lambda n: n, [1, 2]),
            lambda: list(pool.imap(lambda n: n, [1, 2])),
            lambda: pool.apply(tasks.identity, (lambda: 5,)),
        ):
            try:
                call()
            except (AttributeError, pickle.PicklingError) as error:
                print("local object" in str(error) or "lambda" in str(error))
        print(pool.map(double, [3]))
"""
    for method in METHODS:
        code, out, err = run(tmp_path / "program.py", text, method)
        assert code == 0, err
        assert out.splitlines() == ["[2, 4]", *["True"] * 5, "[6]"]


INTERACTIVE = """
import sys
sys.path.insert(0, {here!r})
import support
pool = support.make(2, method={method!r})
def square(n):
    return n * n

print(pool.map(square, range(4)))
class Point:
    def __init__(self, x):
        self.x = x
    def double(self):
        return self.x * 2

print(pool.apply(Point(5).double))
print(pool.map(lambda n: Point(n).double(), [1, 2]))
def square(n):
    return n * n * 100

print(pool.map(square, range(3)))
pool.terminate()
pool.join()
"""


@with_cloudpickle
@pytest.mark.parametrize("method", METHODS)
def test_functions_typed_after_the_pool_was_made(method):
    """As in a notebook: the main module that workers have knows nothing of them."""
    import subprocess
    import sys

    text = INTERACTIVE.format(here=str(support.HERE), method=method)
    done = subprocess.run(
        [sys.executable, "-i", "-q"], input=text, capture_output=True, text=True, timeout=50
    )
    assert done.stdout.splitlines() == ["[0, 1, 4, 9]", "10", "[2, 4]", "[0, 100, 400]"], done.stderr


def test_functions_are_let_go(make_pool):
    import gc
    import weakref

    pool = make_pool(1)
    thing = tasks.CallableThing(5)
    seen = weakref.ref(thing)
    assert pool.apply(thing, (1,)) == 6
    assert pool.map(thing, [1, 2]) == [6, 7]
    assert list(pool.imap(thing, [1])) == [6]
    del thing
    gc.collect()
    assert support.eventually(lambda: seen() is None)


def test_functions_with_large_state(fork_pool):
    numpy = pytest.importorskip("numpy")
    table = Table(numpy.arange(1_000_000.0))
    for _ in range(3):
        assert fork_pool.map(table.at, range(100)) == [float(n) for n in range(100)]


class Table:
    def __init__(self, array):
        self.array = array

    def at(self, place):
        return float(self.array[place])
