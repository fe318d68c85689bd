"""close, terminate, join, with, and what happens when nobody says good-bye."""

import contextlib
import copy
import gc
import multiprocessing
import os
import pickle
import signal
import threading
import time
import warnings
import weakref

import pytest
import support
import tasks
from support import METHODS, Pool, make, run


def test_close_and_join_finish_the_work(shared_free_pool):
    pool = shared_free_pool
    results = [pool.apply_async(tasks.nap_and, (0.005, n)) for n in range(40)]
    pool.close()
    pool.join()
    assert all(result.ready() for result in results)
    assert [result.get() for result in results] == list(range(40))


@pytest.fixture(params=METHODS)
def shared_free_pool(request, make_pool):
    return make_pool(2, method=request.param)


def test_terminate_ends_at_once(shared_free_pool):
    pool = shared_free_pool
    pids = [worker.pid for worker in pool._pool]
    for _ in range(4):
        pool.apply_async(tasks.nap, (300,))
    pool.terminate()
    pool.join()
    assert support.eventually(lambda: not any(support.alive(pid) for pid in pids))


def test_terminate_in_the_middle_of_a_map(make_pool, method):
    pool = make_pool(2, method=method)
    pool.map_async(tasks.nap, [0.05] * 10_000, chunksize=1)
    pool.terminate()
    pool.join()


@pytest.mark.parametrize(
    "steps",
    [
        "close join",
        "terminate join",
        "close terminate join",
        "terminate close join",
        "close close join join",
        "terminate terminate join join",
        "close join terminate join close",
        "terminate join close join terminate",
    ],
)
def test_every_order_of_the_ends(make_pool, steps):
    pool = make_pool(2)
    assert pool.map(tasks.square, range(4)) == [0, 1, 4, 9]
    for step in steps.split():
        getattr(pool, step)()


def test_ends_return_none(make_pool):
    pool = make_pool(1)
    assert pool.close() is None
    assert pool.join() is None
    assert pool.terminate() is None


def test_join_while_running(make_pool):
    pool = make_pool(1)
    with pytest.raises(ValueError, match=r"^Pool is still running$"):
        pool.join()
    assert pool.apply(tasks.square, (2,)) == 4


def test_close_when_idle_ends_the_workers(make_pool, method):
    pool = make_pool(2, method=method)
    pids = [worker.pid for worker in pool._pool]
    pool.close()
    pool.join()
    assert support.eventually(lambda: not any(support.alive(pid) for pid in pids))


def test_results_are_there_after_the_end(make_pool):
    pool = make_pool(2)
    done = pool.apply_async(tasks.identity, ([1, 2],))
    several = pool.map_async(tasks.square, range(10))
    done.wait(), several.wait()
    pool.terminate()
    pool.join()
    assert done.get() == [1, 2]
    assert several.get() == [n * n for n in range(10)]


@pytest.mark.ours
def test_get_after_terminate_raises(make_pool, method):
    import ringpool

    pool = make_pool(2, method=method)
    results = [pool.apply_async(tasks.nap, (300,)) for _ in range(6)]
    results.append(pool.map_async(tasks.nap, [300] * 10, 1))
    pool.terminate()
    for result in results:
        assert support.eventually(result.ready)
        with pytest.raises(ringpool.RingpoolError):
            result.get(30)
        assert not result.successful()
    pool.join()


@pytest.mark.ours
def test_terminate_wakes_whoever_waits(make_pool):
    import ringpool

    pool = make_pool(1)
    result = pool.apply_async(tasks.nap, (300,))
    errors = []

    def wait():
        try:
            result.get()
        except ringpool.RingpoolError as error:
            errors.append(error)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    pool.terminate()
    for thread in threads:
        thread.join(30)
    assert len(errors) == 3


@pytest.mark.ours
def test_error_callbacks_hear_of_terminate(make_pool):
    import ringpool

    pool = make_pool(1)
    wrong = []
    pool.apply_async(tasks.nap, (300,), error_callback=wrong.append)
    pool.apply_async(tasks.nap, (300,), error_callback=wrong.append)
    pool.terminate()
    pool.join()
    assert support.eventually(lambda: len(wrong) == 2)
    assert all(isinstance(e, ringpool.RingpoolError) for e in wrong)


@pytest.mark.ours
def test_terminate_with_workers_that_ignore_it(make_pool, method, tmp_path):
    path = tmp_path / "begun"
    pool = make_pool(2, tasks.ignore_sigterm, method=method)
    pids = [worker.pid for worker in pool._pool]
    pool.apply_async(tasks.touch_and_nap, (str(path), 300))
    assert support.eventually(path.exists)
    pool.terminate()
    pool.join()
    assert not any(support.alive(pid) for pid in pids)


@pytest.mark.ours
def test_terminate_with_a_stopped_worker(make_pool):
    pool = make_pool(2)
    pids = [worker.pid for worker in pool._pool]
    os.kill(pids[0], signal.SIGSTOP)
    pool.terminate()
    pool.join()
    assert not any(support.alive(pid) for pid in pids)


def test_join_from_several_threads(make_pool):
    pool = make_pool(2)
    pool.map_async(tasks.nap, [0.01] * 10)
    pool.close()
    threads = [threading.Thread(target=pool.join) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


# with


def test_with_terminates(shared_free_pool):
    pool = shared_free_pool
    with pool as entered:
        assert entered is pool
        pool.apply_async(tasks.nap, (300,))
    with pytest.raises(ValueError, match=r"^Pool not running$"):
        pool.apply(tasks.square, (1,))
    pool.join()


def test_with_terminates_after_an_error():
    with pytest.raises(LookupError), make(1) as pool:
        pool.apply_async(tasks.nap, (300,))
        raise LookupError
    pool.join()


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_with_a_pool_that_has_ended(make_pool, end):
    pool = make_pool(1)
    getattr(pool, end)()
    with pytest.raises(ValueError, match=r"^Pool not running$"), pool:
        pass
    pool.join()


def test_close_within_with():
    with make(2) as pool:
        results = [pool.apply_async(tasks.square, (n,)) for n in range(10)]
        pool.close()
        pool.join()
    assert [result.get() for result in results] == [n * n for n in range(10)]


# repr, pickling


def test_repr(make_pool):
    pool = make_pool(3)
    name = f"{type(pool).__module__}.{type(pool).__qualname__}"
    assert repr(pool) == f"<{name} state=RUN pool_size=3>"
    pool.close()
    assert "state=CLOSE" in repr(pool)
    pool.terminate()
    assert "state=TERMINATE" in repr(pool)
    pool.join()
    assert repr(pool)


def test_repr_of_a_pool_that_could_not_start():
    pool = Pool.__new__(Pool)
    with contextlib.suppress(ValueError):
        pool.__init__(0)
    del pool
    gc.collect()


def test_pools_do_not_pickle(make_pool):
    pool = make_pool(1)
    text = r"^pool objects cannot be passed between processes or pickled$"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(NotImplementedError, match=text):
            attempt(pool)
    with pytest.raises(NotImplementedError, match=text):
        pool.apply(tasks.identity, (pool,))
    with pytest.raises(NotImplementedError, match=text):
        pool.map(tasks.identity, [pool])
    assert pool.apply(tasks.square, (2,)) == 4


# Left behind


def test_a_pool_that_is_dropped_warns(method):
    pool = make(1, method=method)
    text = repr(pool)
    pids = [worker.pid for worker in pool._pool]
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool") as caught:
        del pool
        gc.collect()
    assert any(text in str(warning.message) for warning in caught)
    del caught  # which refers to the pool
    if support.OURS:
        assert support.eventually(lambda: not any(support.alive(pid) for pid in pids))
    for pid in pids:
        if support.alive(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_pool_that_was_ended_does_not_warn(end):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool = make(1)
        pool.apply(tasks.square, (2,))
        getattr(pool, end)()
        pool.join()
        del pool
        gc.collect()


def test_a_pool_that_was_closed_is_collected(method):
    pool = make(2, method=method)
    seen = weakref.ref(pool)
    pool.map(tasks.square, range(10))
    pool.close()
    pool.join()
    del pool
    gc.collect()
    assert support.eventually(lambda: seen() is None)


def test_a_pool_in_a_cycle_is_collected():
    class Holder:
        pass

    holder = Holder()
    holder.pool = make(1)
    holder.callback = holder.pool.apply_async(abs, (-1,))
    holder.me = holder
    pids = [worker.pid for worker in holder.pool._pool]
    holder.callback.get()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del holder
        gc.collect()
        assert support.eventually(lambda: not any(support.alive(pid) for pid in pids))


def test_results_that_are_dropped_are_run_all_the_same(make_pool, tmp_path):
    pool = make_pool(1)
    path = tmp_path / "runs"
    for _ in range(20):
        pool.apply_async(tasks.note_start, (str(path),))
    gc.collect()
    pool.close()
    pool.join()
    assert len(path.read_text().split()) == 20


FLUSHED = """
import support
if __name__ == "__main__":
    with support.make(3) as pool:
        pool.map(print, [f"line {n}" for n in range(30)], 1)
"""


@pytest.mark.ours
def test_terminate_lets_idle_workers_flush(tmp_path):
    """What a worker has printed comes out, if it has nothing to do when the pool ends."""
    code, out, err = run(tmp_path / "program.py", FLUSHED, env={"PYTHONUNBUFFERED": ""})
    assert code == 0, err
    assert sorted(out.splitlines()) == sorted(f"line {n}" for n in range(30))


PRINTING = """
import time
import support, tasks
if __name__ == "__main__":
    with support.make(2, method="fork") as pool:
        lines, end = 0, time.monotonic() + 2
        while time.monotonic() < end:
            results = [pool.apply_async(tasks.leave, (1,)) for _ in range(2)]
            for _ in range(300):
                print("line", lines)
                lines += 1
            for result in results:
                result.wait()
    print("lines:", lines)
"""


@pytest.mark.ours
def test_replacements_do_not_repeat_what_is_printed_meanwhile(tmp_path):
    code, out, err = run(tmp_path / "program.py", PRINTING, env={"PYTHONUNBUFFERED": ""})
    assert code == 0, err
    lines = out.splitlines()
    assert lines == [f"line {number}" for number in range(len(lines) - 1)] + [f"lines: {len(lines) - 1}"]


# The end of the program

EXITS = """
import os, sys, time
import support, tasks
if __name__ == "__main__":
    how, method = sys.argv[1:3]
    pool = support.make(2, method=method)
    print(*[worker.pid for worker in pool._pool], flush=True)
    assert pool.apply(tasks.square, (3,)) == 9
    if how == "open":
        pass
    elif how == "busy":
        pool.map_async(tasks.nap, [300] * 10, 1)
        time.sleep(0.2)
    elif how == "exit":
        pool.apply_async(tasks.nap, (300,))
        sys.exit(3)
    elif how == "raise":
        pool.apply_async(tasks.nap, (300,))
        raise LookupError("the program's own")
    elif how == "os_exit":
        pool.apply_async(tasks.nap, (300,))
        time.sleep(0.2)
        os._exit(5)
    elif how == "waiting":
        import threading
        def wait():
            try:
                pool.apply(tasks.nap, (300,))
            except Exception:
                pass
        threading.Thread(target=wait, daemon=True).start()
        time.sleep(0.2)
    elif how == "iterating":
        iterator = pool.imap(tasks.square, range(10**6))
        next(iterator)
    elif how == "global":
        import builtins
        builtins.kept = pool
    elif how == "closed":
        pool.map_async(tasks.nap, [0.05] * 4, 1)
        pool.close()
"""


@pytest.mark.parametrize(
    "how", ["open", "busy", "exit", "raise", "os_exit", "waiting", "iterating", "global", "closed"]
)
@pytest.mark.parametrize("method", METHODS)
def test_programs_end_though_a_pool_is_open(tmp_path, how, method):
    if how == "os_exit" and not support.OURS:
        pytest.skip("multiprocessing leaves the worker")
    code, out, err = run(tmp_path / "program.py", EXITS, how, method, seconds=30)
    pids = [int(pid) for pid in out.split()]
    assert len(pids) == 2
    assert code == {"exit": 3, "raise": 1, "os_exit": 5}.get(how, 0), err
    assert support.eventually(lambda: not any(support.alive(pid) for pid in pids))
    if how == "raise":
        assert "the program's own" in err
        assert err.count("Traceback") == 1
    else:
        assert "Traceback" not in err and "panick" not in err, err


GUARD = """
import sys
import support, tasks
if __name__ == "__main__" or sys.argv[1] == "unguarded":
    pool = support.make(1, method="spawn")
    print(pool.apply(tasks.square, (3,)))
    pool.terminate()
    pool.join()
"""


def test_a_main_module_without_a_guard_gives_multiprocessing_s_error(tmp_path):
    code, out, err = run(tmp_path / "program.py", GUARD, "guarded")
    assert (code, out) == (0, "9\n")
    if support.OURS:
        code, out, err = run(tmp_path / "program.py", GUARD, "unguarded")
        assert code != 0 and out == ""
        assert "freeze_support" in err


DAEMON_THREADS = """
import threading, time
import support, tasks
if __name__ == "__main__":
    pool = support.make(2)
    def hammer():
        while True:
            pool.map(tasks.square, range(100), 1)
            pool.apply(tasks.square, (2,))
    for _ in range(4):
        threading.Thread(target=hammer, daemon=True).start()
    time.sleep(0.3)
"""


@pytest.mark.ours
def test_programs_end_while_daemon_threads_use_the_pool(tmp_path):
    for _ in range(5):
        code, _out, err = run(tmp_path / "program.py", DAEMON_THREADS, seconds=30)
        assert code == 0, err
        assert "panick" not in err and "Fatal" not in err


def test_context_pools_are_untouched():
    """The world's own pools go on as before."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(abs, (-1,)) == 1
