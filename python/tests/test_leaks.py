"""What two hundred pools leave behind: nothing."""

import contextlib
import gc
import os
import pickle
import threading
from pathlib import Path

import pytest
import support
import tasks
from support import make

pytestmark = pytest.mark.ours


def look():
    gc.collect()
    return {
        "descriptors": len(support.open_descriptors()),
        "threads": len(os.listdir("/proc/self/task")),
        "python threads": threading.active_count(),
        "children": len(support.children()),
        "segments": len(support.segments()),
        # Programs beside this one have theirs.
        "files": sum("ringpool" in name for name in os.listdir("/dev/shm")),
        "mappings": sum(1 for _ in open("/proc/self/maps")) // 20,
    }


def no_more_than(before):
    """Whether nothing is there that was not; pools of other tests may have ended meanwhile."""
    now = look()
    return all(now[what] <= count for what, count in before.items())


def use(pool):
    assert pool.apply(tasks.square, (3,)) == 9
    assert pool.map(tasks.square, range(20), 1) == [n * n for n in range(20)]
    assert list(pool.imap(tasks.square, range(5))) == [n * n for n in range(5)]
    assert pool.apply_async(len, (bytes(100_000),), callback=lambda value: None).get() == 100_000


@pytest.mark.limit(200)
@pytest.mark.parametrize("end", ["close", "terminate", "with", "drop"])
def test_two_hundred_pools(end):
    def one():
        pool = make(2)
        use(pool)
        if end == "with":
            with pool:
                pool.apply_async(tasks.nap, (300,))
        elif end != "drop":
            getattr(pool, end)()
        if end != "drop":
            pool.join()

    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(3):
            one()
        before = look()
        for _ in range(200 if end == "close" else 50):
            one()
        assert support.eventually(lambda: no_more_than(before)), (before, look())


@pytest.mark.limit(200)
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pools_of_other_methods(method):
    def one():
        pool = make(2, method=method)
        use(pool)
        pool.close()
        pool.join()

    for _ in range(2):
        one()
    before = look()
    for _ in range(15):
        one()
    # The first ones may not have been gone altogether when that was looked at.
    assert support.eventually(lambda: all(now <= before[what] for what, now in look().items())), (
        before,
        look(),
    )


def test_replaced_workers():
    with make(1, maxtasksperchild=1) as pool:
        for _ in range(10):
            pool.apply(tasks.square, (3,))
        before = look()
        for _ in range(60):
            pool.apply(tasks.square, (3,))
        after = look()
        for key in ("threads", "python threads", "segments", "files"):
            assert after[key] == before[key], key
        assert after["descriptors"] <= before["descriptors"] + 3
        assert after["children"] <= before["children"] + 3
    pool.join()


def test_killed_workers():
    from ringpool import WorkerDied

    with make(2) as pool:
        for _ in range(3):
            with pytest.raises(WorkerDied):
                pool.apply(tasks.leave, (1,))
        use(pool)
        before = look()
        for _ in range(30):
            with pytest.raises(WorkerDied):
                pool.apply(tasks.leave, (1,))
        use(pool)
        assert support.eventually(lambda: look()["children"] <= before["children"])
        after = look()
        assert after["descriptors"] <= before["descriptors"] + 2
        assert after["threads"] == before["threads"]
    pool.join()


def test_pools_that_could_not_start():
    def fail():
        with pytest.raises((AttributeError, pickle.PicklingError)):
            make(2, tasks.keep_given, (lambda: 5,), method="spawn")

    for _ in range(3):
        fail()
    before = look()
    for _ in range(20):
        fail()
    assert support.eventually(lambda: no_more_than(before)), (before, look())


def test_pools_whose_initializer_fails():
    from ringpool import InitializerError

    def fail():
        pool = make(2, tasks.failing_initializer)
        with pytest.raises(InitializerError):
            pool.apply(tasks.square, (3,))
        pool.terminate()
        pool.join()

    for _ in range(3):
        fail()
    before = look()
    for _ in range(30):
        fail()
    assert support.eventually(lambda: no_more_than(before)), (before, look())


def test_many_calls_hold_nothing():
    import tracemalloc

    with make(1) as pool:

        def work(count):
            for n in range(count):
                pool.apply(tasks.collect, (n, "text"), {"key": [n]})
            results = [pool.apply_async(tasks.identity, (n,)) for n in range(count)]
            for r in results:
                r.get()
            pool.map(tasks.identity, range(count), 1)
            list(pool.imap(tasks.identity, range(count)))
            for _ in range(count // 10):
                with contextlib.suppress(ValueError):
                    pool.apply(tasks.fail)

        work(2000)
        tracemalloc.start()
        work(500)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5):
            work(2000)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert after - before < 100_000, (before, after)
    pool.join()


def test_workers_hold_nothing():
    with make(1) as pool:

        def resident():
            return pool.apply(resident_of_this)

        def work(count):
            for _ in range(count):
                pool.apply(len, (bytes(20_000),))
                pool.apply(bytes, (20_000,))
            pool.map(len, [bytes(300_000)] * (count // 10), 1)

        work(1000)
        before = resident()
        for _ in range(5):
            work(1000)
        assert resident() - before < 8 << 20
    pool.join()


def resident_of_this():
    """Private memory: what is shared belongs to the pool."""
    total = 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.startswith(("Private_Dirty:", "Private_Clean:")):
            total += int(line.split()[1]) * 1024
    return total
