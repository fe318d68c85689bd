"""Iterators: order, laziness, bounds, and being left half way."""

import contextlib
import gc
import itertools
import multiprocessing
import threading
import time

import pytest
import support
import tasks
from support import make

BOTH = pytest.mark.parametrize("name", ["imap", "imap_unordered"])


@BOTH
def test_iterators_iterate_over_themselves(fork_pool, name):
    iterator = getattr(fork_pool, name)(tasks.square, range(3))
    assert iter(iterator) is iterator
    assert sorted(iterator) == [0, 1, 4]
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(iterator)


@BOTH
def test_next_with_a_timeout(shared_pool, name):
    iterator = getattr(shared_pool, name)(tasks.nap_and_first, [(0.4, 1), (0.4, 2), (0.4, 3)])
    with pytest.raises(multiprocessing.TimeoutError) as caught:
        while True:
            iterator.next(0.01)
    assert type(caught.value) is multiprocessing.TimeoutError
    assert caught.value.args == ()
    got = []
    while len(got) < 3:
        with contextlib.suppress(multiprocessing.TimeoutError):
            got.append(iterator.next(timeout=0.05))
    assert sorted(got) == [1, 2, 3]
    with pytest.raises(StopIteration):
        iterator.next(1)
    with pytest.raises(StopIteration):
        iterator.next()


@BOTH
def test_next_without_a_timeout(fork_pool, name):
    iterator = getattr(fork_pool, name)(tasks.square, [2])
    assert iterator.next() == 4
    with pytest.raises(StopIteration):
        iterator.next()


def test_results_come_in_order(shared_pool):
    items = [(0.2, 0), (0, 1), (0.1, 2), (0, 3), (0, 4)]
    assert list(shared_pool.imap(tasks.nap_and_first, items)) == [0, 1, 2, 3, 4]


def test_results_come_as_they_are_done(shared_pool):
    items = [(1.5, "slow"), (0, 1), (0, 2), (0, 3)]
    got = list(shared_pool.imap_unordered(tasks.nap_and_first, items))
    assert got[-1] == "slow" and sorted(got[:3]) == [1, 2, 3]


def test_an_exception_comes_in_its_place_and_iteration_goes_on(shared_pool):
    iterator = shared_pool.imap(tasks.fail_at_three, range(6))
    got = []
    for _ in range(6):
        try:
            got.append(next(iterator))
        except ValueError as error:
            got.append(error.args)
    assert got == [0, 1, 2, (3,), 4, 5]
    with pytest.raises(StopIteration):
        next(iterator)


def test_an_exception_of_imap_unordered_costs_one_item(shared_pool):
    iterator = shared_pool.imap_unordered(tasks.fail_at_three, range(50))
    got, failed = [], 0
    while True:
        try:
            got.append(next(iterator))
        except ValueError:
            failed += 1
        except StopIteration:
            break
    assert failed == 1
    assert sorted(got) == [n for n in range(50) if n != 3]


def test_an_exception_in_a_chunk_ends_neither_pool_nor_earlier_chunks(shared_pool):
    iterator = shared_pool.imap(tasks.fail_at_three, range(9), chunksize=3)
    assert [next(iterator) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError):
        next(iterator)
    assert shared_pool.apply(tasks.square, (3,)) == 9


@BOTH
@pytest.mark.parametrize("chunksize", [1, 7, 1000])
def test_an_endless_pipeline(fork_pool, name, chunksize):
    """Two iterators, one feeding the other."""
    first = getattr(fork_pool, name)(tasks.square, range(200), chunksize)
    second = getattr(fork_pool, name)(tasks.square, first, chunksize)
    assert sorted(second) == sorted(n**4 for n in range(200))


@BOTH
def test_several_iterators_by_turns(shared_pool, name):
    iterators = [getattr(shared_pool, name)(tasks.square, range(n, n + 50)) for n in range(5)]
    got = [[] for _ in iterators]
    for _ in range(50):
        for values, iterator in zip(got, iterators, strict=True):
            values.append(next(iterator))
    assert [sorted(values) for values in got] == [[m * m for m in range(n, n + 50)] for n in range(5)]


@BOTH
def test_calls_between_the_items(fork_pool, name):
    iterator = getattr(fork_pool, name)(tasks.square, range(20))
    for _ in range(20):
        next(iterator)
        assert fork_pool.apply(tasks.square, (3,)) == 9
        assert fork_pool.map(tasks.square, range(5)) == [0, 1, 4, 9, 16]


@BOTH
def test_several_threads_take_from_one_iterator(fork_pool, name):
    iterator = getattr(fork_pool, name)(tasks.identity, range(500))
    got = []

    def take():
        for value in iterator:
            got.append(value)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert sorted(got) == list(range(500))


@BOTH
def test_work_begins_at_the_call(fork_pool, name, tmp_path):
    path = tmp_path / "begun"
    iterator = getattr(fork_pool, name)(tasks.note_start, [str(path)])
    assert support.eventually(path.exists)
    assert list(iterator) == [None]


# Bounds


@pytest.mark.ours
@BOTH
def test_endless_input_is_read_in_bounds(make_pool, name):
    pool = make_pool(2)
    taken = itertools.count()
    most = 0

    def source():
        yield from taken

    iterator = getattr(pool, name)(tasks.identity, source())
    got = [next(iterator) for _ in range(1000)]
    assert len(set(got)) == 1000
    time.sleep(0.2)
    most = next(taken)
    assert most < 1000 + 10_000
    pool.terminate()


@pytest.mark.ours
@BOTH
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_buffersize(make_pool, name, size):
    pool = make_pool(2)
    taken, returned = 0, 0
    worst = 0

    def source():
        nonlocal taken, worst
        for n in range(300):
            taken += 1
            worst = max(worst, taken - returned)
            yield n

    got = []
    for value in getattr(pool, name)(tasks.identity, source(), buffersize=size):
        returned += 1
        got.append(value)
    assert sorted(got) == list(range(300))
    # One more at most: an item counts as returned here only after next() has returned it.
    assert worst <= size + 1


@pytest.mark.ours
@BOTH
def test_buffersize_with_chunks(make_pool, name):
    pool = make_pool(2)
    assert sorted(getattr(pool, name)(tasks.square, range(100), chunksize=7, buffersize=20)) == [
        n * n for n in range(100)
    ]
    assert sorted(getattr(pool, name)(tasks.square, range(100), chunksize=20, buffersize=7)) == [
        n * n for n in range(100)
    ]


@pytest.mark.ours
@BOTH
@pytest.mark.parametrize("size", [0, -1])
def test_buffersize_of_nothing(fork_pool, name, size):
    with pytest.raises(ValueError, match="buffersize"):
        getattr(fork_pool, name)(tasks.square, [1], buffersize=size)


@pytest.mark.ours
@BOTH
def test_buffersize_of_another_type(fork_pool, name):
    with pytest.raises(TypeError):
        getattr(fork_pool, name)(tasks.square, [1], buffersize="many")
    assert list(getattr(fork_pool, name)(tasks.square, [1], buffersize=None)) == [1]


@pytest.mark.ours
def test_results_that_nobody_takes_stay_bounded(make_pool, tmp_path):
    """Workers stop when the results of a lazy iterator are not taken."""
    pool = make_pool(2)
    taken = 0

    def source():
        nonlocal taken
        while True:
            taken += 1
            yield bytes(100_000)

    iterator = pool.imap(tasks.identity, source(), buffersize=16)
    next(iterator)
    time.sleep(0.3)
    assert taken <= 18
    assert pool.apply(tasks.square, (2,)) == 4
    pool.terminate()


# Left half way


@BOTH
@pytest.mark.parametrize("chunksize", [1, 5])
def test_close_and_join_after_a_part(make_pool, name, chunksize, method):
    pool = make_pool(2, method=method)
    iterator = getattr(pool, name)(tasks.square, range(100), chunksize)
    got = [next(iterator) for _ in range(10)]
    pool.close()
    pool.join()
    assert len(got) == 10


@pytest.mark.ours
@BOTH
def test_close_lets_an_iterator_go_on(make_pool, name):
    pool = make_pool(2)
    iterator = getattr(pool, name)(tasks.square, range(3000))
    first = [next(iterator) for _ in range(5)]
    pool.close()
    assert sorted(first + list(iterator)) == [n * n for n in range(3000)]
    pool.join()


@pytest.mark.ours
@BOTH
def test_join_is_not_held_up_by_an_iterator_that_nobody_reads(make_pool, name):
    pool = make_pool(2)
    iterator = getattr(pool, name)(tasks.square, itertools.count(), buffersize=8)
    next(iterator)
    pool.close()
    thread = threading.Thread(target=pool.join, daemon=True)
    thread.start()
    time.sleep(0.2)
    del iterator
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


@BOTH
def test_terminate_after_a_part(make_pool, name, method):
    pool = make_pool(2, method=method)
    iterator = getattr(pool, name)(tasks.square, range(1000))
    next(iterator)
    pool.terminate()
    pool.join()


@pytest.mark.ours
@BOTH
def test_terminate_ends_an_iterator_with_an_error(make_pool, name):
    import ringpool

    pool = make_pool(2)
    iterator = getattr(pool, name)(tasks.nap, [0.05] * 100)
    next(iterator)
    pool.terminate()
    with pytest.raises(ringpool.RingpoolError):
        for _ in iterator:
            pass


@BOTH
def test_iterators_that_are_dropped(make_pool, name):
    pool = make_pool(2)
    for n in range(50):
        iterator = getattr(pool, name)(tasks.square, range(20), 1 + n % 3)
        if n % 2:
            next(iterator)
        del iterator
    gc.collect()
    assert pool.map(tasks.square, range(10)) == [n * n for n in range(10)]
    pool.close()
    pool.join()


@pytest.mark.ours
@BOTH
def test_generators_of_dropped_iterators_are_closed(make_pool, name):
    pool = make_pool(2)
    closed = threading.Event()

    def source():
        try:
            yield from itertools.count()
        finally:
            closed.set()

    iterator = getattr(pool, name)(tasks.square, source(), buffersize=8)
    next(iterator)
    del iterator
    gc.collect()
    assert closed.wait(20)
    assert pool.apply(tasks.square, (2,)) == 4


@BOTH
def test_a_broken_loop_and_the_with_statement(name):
    with make(2) as pool:
        got = []
        for value in getattr(pool, name)(tasks.square, range(1000)):
            got.append(value)
            break
    assert got[0] >= 0


@BOTH
def test_a_slow_source(shared_pool, name):
    def source():
        for n in range(10):
            time.sleep(0.01)
            yield n

    assert sorted(getattr(shared_pool, name)(tasks.square, source())) == [n * n for n in range(10)]


def test_results_come_while_the_source_waits(fork_pool):
    """What is done is given out before the next item is there."""
    go_on = threading.Event()

    def source():
        yield 1
        yield 2
        assert go_on.wait(30)
        yield 3

    iterator = fork_pool.imap(tasks.square, source())
    first = threading.Thread(target=lambda: got.extend([next(iterator), next(iterator)]))
    got = []
    first.start()
    first.join(10)
    early = list(got)
    go_on.set()
    first.join(20)
    assert early == [1, 4]
    assert list(iterator) == [9]


@pytest.mark.ours
def test_a_source_may_use_the_pool(fork_pool):
    def source():
        for n in range(20):
            yield fork_pool.apply(tasks.square, (n,))

    assert list(fork_pool.imap(tasks.identity, source())) == [n * n for n in range(20)]


@BOTH
def test_many_items(fork_pool, name):
    total = 0
    for value in getattr(fork_pool, name)(tasks.identity, iter(range(30_000)), 1):
        total += value
    assert total == sum(range(30_000))
