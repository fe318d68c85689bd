"""ApplyResult, MapResult, and what callbacks see."""

import gc
import multiprocessing
import multiprocessing.pool
import threading
import time
import weakref

import pytest
import support
import tasks
from support import PACKAGE, make

# get, wait, ready, successful


def test_get_gives_the_same_object_each_time(shared_pool):
    result = shared_pool.apply_async(tasks.identity, ([1, 2],))
    assert result.get() is result.get()
    result = shared_pool.map_async(tasks.identity, [[1], [2]])
    assert result.get() is result.get()


def test_get_raises_the_same_exception_each_time(shared_pool):
    for result in (shared_pool.apply_async(tasks.fail), shared_pool.map_async(tasks.fail, ["wrong"])):
        seen = []
        for _ in range(3):
            with pytest.raises(ValueError, match="wrong") as caught:
                result.get()
            seen.append(caught.value)
        assert seen[0] is seen[1] is seen[2]


def test_timeouts_are_multiprocessing_s(shared_pool):
    result = shared_pool.apply_async(tasks.nap_and, (0.6, 5))
    for timeout in (0, 0.01, -1):
        with pytest.raises(multiprocessing.TimeoutError) as caught:
            result.get(timeout)
        assert type(caught.value) is multiprocessing.TimeoutError
        assert caught.value.args == ()
        assert not isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, multiprocessing.ProcessError)
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout=0.01)
    # A timeout cancels nothing.
    assert result.get() == 5
    assert result.get(0) == 5


def test_timeouts_of_maps(fork_pool):
    result = fork_pool.map_async(tasks.nap, [0.2] * 4, 1)
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(0.01)
    assert result.get(30) == [None] * 4


def test_wait_returns_none_always(shared_pool):
    result = shared_pool.apply_async(tasks.nap, (0.3,))
    assert result.wait(0) is None
    assert result.wait(0.01) is None
    assert result.wait(timeout=0.01) is None
    assert not result.ready()
    assert result.wait() is None
    assert result.ready()
    assert result.wait() is None
    failed = shared_pool.apply_async(tasks.fail)
    assert failed.wait() is None


def test_timeouts_that_are_huge(fork_pool):
    assert fork_pool.apply_async(tasks.square, (2,)).get(10**6) == 4
    result = fork_pool.apply_async(tasks.nap, (0.05,))
    result.wait(1e6)
    assert result.ready()


def test_ready_and_successful(shared_pool):
    result = shared_pool.apply_async(tasks.nap, (0.3,))
    assert result.ready() is False
    with pytest.raises(ValueError, match=r"not ready$") as caught:
        result.successful()
    assert repr(result) in str(caught.value)
    result.wait()
    assert result.ready() is True
    assert result.successful() is True
    failed = shared_pool.apply_async(tasks.fail)
    failed.wait()
    assert failed.ready() is True
    assert failed.successful() is False


def test_successful_of_maps(fork_pool):
    result = fork_pool.map_async(tasks.nap, [0.3], 1)
    with pytest.raises(ValueError, match=r"not ready$"):
        result.successful()
    result.wait()
    assert result.successful() is True
    failed = fork_pool.map_async(tasks.fail_at_three, range(6), 1)
    failed.wait()
    assert failed.successful() is False


def test_results_become_ready_while_nobody_waits(shared_pool):
    results = [shared_pool.apply_async(tasks.square, (n,)) for n in range(20)]
    several = shared_pool.map_async(tasks.square, range(50))
    assert support.eventually(lambda: all(r.ready() for r in results) and several.ready())


def test_classes_of_results():
    assert multiprocessing.pool.AsyncResult[int]
    with make(1) as pool:
        single, several = pool.apply_async(abs, (-1,)), pool.map_async(abs, [-1])
        assert type(single)[int] and type(several)[int]
        assert single.get() == 1 and several.get() == [1]


@pytest.mark.ours
def test_names_of_results_are_exported():
    import ringpool.pool

    with make(1) as pool:
        assert isinstance(pool.apply_async(abs, (-1,)), ringpool.pool.AsyncResult)
        assert isinstance(pool.apply_async(abs, (-1,)), ringpool.pool.ApplyResult)
        assert isinstance(pool.map_async(abs, [-1]), ringpool.pool.MapResult)


def test_a_map_result_is_a_result(fork_pool):
    single, several = fork_pool.apply_async(abs, (-1,)), fork_pool.map_async(abs, [-1])
    assert isinstance(several, type(single))
    single.get(), several.get()


def test_results_keep_the_pool_alive():
    assert make(1).apply_async(tasks.nap_and, (0.2, 5)).get() == 5
    assert make(1).map_async(tasks.square, range(10)).get() == [n * n for n in range(10)]
    gc.collect()


def test_iterators_keep_the_pool_alive():
    assert list(make(1).imap(tasks.square, range(10))) == [n * n for n in range(10)]
    assert sorted(make(1).imap_unordered(tasks.square, range(10))) == [n * n for n in range(10)]
    gc.collect()


def test_several_threads_wait_for_one_result(shared_pool):
    result = shared_pool.apply_async(tasks.nap_and, (0.3, [1]))
    got = []
    threads = [threading.Thread(target=lambda: got.append(result.get())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(got) == 8 and all(value is got[0] for value in got)


def test_results_may_be_waited_for_in_any_order(shared_pool):
    results = [shared_pool.apply_async(tasks.square, (n,)) for n in range(500)]
    for n in (*range(499, -1, -7), *range(0, 500, 3)):
        assert results[n].get() == n * n


# What is kept


class Value:
    """May be referred to weakly, and pickles."""


def test_arguments_are_let_go(make_pool):
    pool = make_pool(1)
    value = Value()
    seen = weakref.ref(value)
    result = pool.apply_async(tasks.nothing_of, (value,))
    several = pool.map_async(tasks.nothing_of, [value])
    result.get(), several.get()
    del value
    gc.collect()
    assert support.eventually(lambda: seen() is None)
    # What was the last must not be held by a worker's loop either.
    assert pool.apply(tasks.nothing) is None


def test_results_are_let_go(make_pool):
    pool = make_pool(1)
    result = pool.apply_async(tasks.make_value)
    seen = weakref.ref(result.get())
    assert seen() is not None
    del result
    gc.collect()
    assert support.eventually(lambda: seen() is None)


def test_callbacks_are_let_go(make_pool):
    pool = make_pool(1)

    class Callback:
        def __call__(self, value):
            pass

    callback = Callback()
    seen = weakref.ref(callback)
    result = pool.apply_async(abs, (-1,), callback=callback)
    assert result.get() == 1
    del callback, result
    gc.collect()
    assert support.eventually(lambda: seen() is None)


# Callbacks


def test_callbacks_get_values(shared_pool):
    got = []
    shared_pool.apply_async(tasks.square, (3,), callback=got.append).wait()
    shared_pool.map_async(tasks.square, range(3), callback=got.append).wait()
    shared_pool.starmap_async(tasks.add, [(1, 2), (3, 4)], callback=got.append).wait()
    assert got == [9, [0, 1, 4], [3, 7]]


def test_callbacks_get_the_same_object_as_get(fork_pool):
    got = []
    result = fork_pool.apply_async(tasks.identity, ([1],), callback=got.append)
    assert result.get() is got[0]
    several = fork_pool.map_async(tasks.identity, [1], callback=got.append)
    assert several.get() is got[1]
    failed = fork_pool.apply_async(tasks.fail, error_callback=got.append)
    with pytest.raises(ValueError) as caught:
        failed.get()
    assert caught.value is got[2]


def test_error_callbacks_get_exceptions(shared_pool):
    right, wrong = [], []
    shared_pool.apply_async(tasks.fail, ("a",), callback=right.append, error_callback=wrong.append).wait()
    shared_pool.map_async(tasks.fail, ["b"], callback=right.append, error_callback=wrong.append).wait()
    shared_pool.apply_async(abs, (-1,), callback=right.append, error_callback=wrong.append).wait()
    assert right == [1]
    assert [(type(e), e.args) for e in wrong] == [(ValueError, ("a",)), (ValueError, ("b",))]


def test_an_error_callback_of_a_map_is_called_once_at_the_end(fork_pool, tmp_path):
    wrong = []
    path = tmp_path / "runs"
    result = fork_pool.starmap_async(
        note_and_fail,
        [(str(path), n) for n in range(10)],
        1,
        error_callback=lambda e: wrong.append((e, path.read_text().count("\n"))),
    )
    result.wait()
    assert len(wrong) == 1
    assert isinstance(wrong[0][0], ValueError)
    assert wrong[0][1] == 10


def note_and_fail(path, value):
    tasks.attempt(path)
    raise ValueError(value)


def test_callbacks_come_before_ready(fork_pool):
    seen = []
    box = []
    bound = threading.Event()

    def look(value):
        bound.wait(20)
        seen.append(box[0].ready())

    box.append(fork_pool.apply_async(tasks.nap, (0.1,), callback=look))
    bound.set()
    box[0].wait()
    assert seen == [False]
    assert box[0].ready()


def test_map_callbacks_come_before_ready(fork_pool):
    seen = []
    box = []
    bound = threading.Event()

    def look(value):
        bound.wait(20)
        seen.append(box[0].ready())

    box.append(fork_pool.map_async(tasks.nap, [0.05] * 3, 1, callback=look))
    bound.set()
    box[0].wait()
    assert seen == [False]


def test_callbacks_run_one_at_a_time(shared_pool):
    running, most, threads = 0, 0, set()
    lock = threading.Lock()

    def callback(value):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        threads.add(threading.current_thread())
        with lock:
            running -= 1

    results = [shared_pool.apply_async(tasks.square, (n,), callback=callback) for n in range(30)]
    for result in results:
        result.wait()
    assert most == 1
    assert threading.main_thread() not in threads


def test_callbacks_come_in_order_with_one_worker(make_pool):
    pool = make_pool(1)
    got = []
    results = [pool.apply_async(tasks.identity, (n,), callback=got.append) for n in range(300)]
    for result in results:
        result.wait()
    assert got == list(range(300))


def test_callbacks_of_failures_in_order_with_one_worker(make_pool):
    pool = make_pool(1)
    got = []
    for n in range(50):
        pool.apply_async(
            tasks.fail_at, (n - n % 2, n), callback=got.append, error_callback=lambda e: got.append(e.args[0])
        )
    pool.close()
    pool.join()
    assert got == list(range(50))


@pytest.mark.ours
def test_callbacks_that_raise_hurt_nobody(shared_pool, capsys):
    got = []

    def raises(value):
        raise RuntimeError("in a callback")

    results = [shared_pool.apply_async(tasks.square, (n,), callback=raises) for n in range(3)]
    results.append(shared_pool.map_async(tasks.square, range(3), callback=raises))
    results.append(shared_pool.apply_async(tasks.fail, error_callback=raises))
    for result in results:
        result.wait(30)
        assert result.ready()
    assert shared_pool.apply_async(tasks.square, (5,), callback=got.append).get(30) == 25
    assert got == [25]
    assert shared_pool.map(tasks.square, range(3)) == [0, 1, 4]


@pytest.mark.ours
def test_callbacks_that_exit_hurt_nobody(fork_pool):
    def exits(value):
        raise SystemExit(3)

    fork_pool.apply_async(tasks.square, (3,), callback=exits).wait(30)
    assert fork_pool.apply_async(tasks.square, (5,), callback=print).get(30) == 25


def test_callbacks_run_though_nobody_waits(make_pool):
    pool = make_pool(2)
    got = []
    for n in range(100):
        pool.apply_async(tasks.square, (n,), callback=got.append)
    assert support.eventually(lambda: len(got) == 100)
    assert sorted(got) == [n * n for n in range(100)]


def test_join_waits_for_callbacks(make_pool):
    pool = make_pool(2)
    got = []

    def slow(value):
        time.sleep(0.01)
        got.append(value)

    for n in range(20):
        pool.apply_async(tasks.square, (n,), callback=slow)
    pool.close()
    pool.join()
    assert len(got) == 20


def test_repr_of_results(fork_pool):
    result = fork_pool.apply_async(abs, (-1,))
    assert "Result object at 0x" in repr(result)
    result.get()


def test_module_of_the_pool():
    with make(1) as pool:
        assert type(pool).__module__.split(".")[0] == PACKAGE


def test_failed_results_are_collected(fork_pool):
    """The exception of a result refers to the frame that asked for it, and that to the result."""

    def ask():
        local = Local()
        result = fork_pool.apply_async(tasks.fail, (1,))
        results = fork_pool.map_async(tasks.fail, [1, 2], callback=print)
        for each in (result, results):
            with pytest.raises(ValueError):
                each.get()
        return weakref.ref(local)

    asked = [ask() for _ in range(3)]
    gc.collect()
    assert [local() for local in asked] == [None] * 3


class Local:
    pass
