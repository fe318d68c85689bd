"""Many tasks at once: nothing blocks for ever, nothing is lost, and memory has bounds."""

import functools
import threading
import time

import pytest
import support
import tasks

MANY = 200_000 if support.OURS else 20_000


@pytest.mark.limit(150)
def test_many_outstanding_calls(make_pool):
    pool = make_pool(2)
    first = [pool.apply_async(tasks.nap, (0.5,)) for _ in range(2)]
    results = [pool.apply_async(tasks.identity, (n,)) for n in range(MANY)]
    assert sum(r.get() for r in results) == sum(range(MANY))
    assert all(r.get() is None for r in first)


@pytest.mark.ours
@pytest.mark.limit(150)
def test_submitting_never_waits_for_workers(make_pool, tmp_path):
    """Submitted while every worker is held up; only then are they let go."""
    gate = tmp_path / "gate"
    pool = make_pool(2)
    held = [pool.apply_async(wait_for, (str(gate),)) for _ in range(2)]
    results = [pool.apply_async(tasks.identity, (n,)) for n in range(MANY)]
    maps = [pool.map_async(tasks.identity, range(20_000), 1) for _ in range(5)]
    large = [pool.apply_async(len, (bytes(1_000_000),)) for _ in range(300)]
    assert not any(r.ready() for r in held)
    gate.write_text("")
    assert [r.get() for r in results] == list(range(MANY))
    assert all(m.get() == list(range(20_000)) for m in maps)
    assert all(r.get() == 1_000_000 for r in large)


def wait_for(path):
    import os

    while not os.path.exists(path):
        time.sleep(0.005)


@pytest.mark.ours
def test_map_async_of_large_items_never_waits(make_pool, tmp_path):
    gate = tmp_path / "gate"
    pool = make_pool(2)
    held = [pool.apply_async(wait_for, (str(gate),)) for _ in range(2)]
    items = [bytes([n % 256]) * 2_000_000 for n in range(200)]
    result = pool.map_async(first_byte, items, 1)
    assert not result.ready() and not held[0].ready()
    gate.write_text("")
    assert result.get() == [n % 256 for n in range(200)]


def first_byte(value):
    return value[0]


@pytest.mark.limit(150)
def test_results_that_are_not_fetched(make_pool):
    pool = make_pool(2)
    results = [pool.apply_async(bytes, (100_000,)) for _ in range(2000)]
    pool.close()
    pool.join()
    assert all(len(r.get()) == 100_000 for r in results)


@pytest.mark.limit(150)
def test_results_that_nobody_keeps(make_pool):
    pool = make_pool(2)
    for _ in range(MANY // 4):
        pool.apply_async(tasks.identity, (1,))
    assert pool.apply(tasks.square, (3,)) == 9
    pool.close()
    pool.join()


@pytest.mark.limit(150)
def test_many_callbacks(make_pool):
    pool = make_pool(2)
    got = []
    for n in range(MANY // 4):
        pool.apply_async(tasks.identity, (n,), callback=got.append)
    pool.close()
    pool.join()
    assert sorted(got) == list(range(MANY // 4))


def test_a_map_of_a_hundred_thousand_chunks(make_pool):
    pool = make_pool(2)
    assert pool.map(tasks.identity, range(100_000 if support.OURS else 10_000), 1)[-1] > 0


def test_large_arguments_outstanding(make_pool):
    pool = make_pool(2)
    value = bytes(5_000_000)
    results = [pool.apply_async(len, (value,)) for _ in range(100)]
    assert [r.get() for r in results] == [5_000_000] * 100


def test_large_results_outstanding(make_pool):
    pool = make_pool(2)
    results = [pool.apply_async(bytes, (5_000_000,)) for _ in range(60)]
    assert [len(r.get()) for r in results] == [5_000_000] * 60


def test_more_workers_than_processors(make_pool, tmp_path):
    pool = make_pool(20)
    assert pool.map(tasks.square, range(5000), 1) == [n * n for n in range(5000)]
    assert len(set(pool.map(functools.partial(tasks.meet, tmp_path), [20] * 20, 1))) == 20


def test_submitting_from_several_threads(make_pool):
    pool = make_pool(2)
    totals = []

    def work():
        results = [pool.apply_async(tasks.identity, (n,)) for n in range(5000)]
        totals.append(sum(r.get() for r in results))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert totals == [sum(range(5000))] * 4


@pytest.mark.ours
def test_terminate_with_many_outstanding(make_pool):
    import ringpool

    pool = make_pool(2)
    results = [pool.apply_async(tasks.nap, (0.001,)) for _ in range(50_000)]
    pool.terminate()
    pool.join()
    assert all(r.ready() for r in results)
    failed = 0
    for r in results:
        try:
            r.get()
        except ringpool.RingpoolError:
            failed += 1
    assert failed > 0


@pytest.mark.ours
def test_an_idle_pool_uses_no_cpu(make_pool, method):
    pool = make_pool(2, method=method)
    pool.map(tasks.square, range(100), 1)
    result = pool.apply_async(tasks.nap_and, (3, 1))
    pool.apply(tasks.nap, (0.5,))
    pids = [worker.pid for worker in pool._pool]

    def used():
        return sum(support.cpu_seconds(pid) for pid in pids) + support.cpu_seconds("self")

    # The least of some: other things may happen in this process.
    spent = []
    for _ in range(4):
        before = used()
        time.sleep(0.4)
        spent.append(used() - before)
    assert min(spent) < 0.02, spent
    assert result.get() == 1
