"""Workers that die: in single calls, in chunks, in initializers; and being tried again."""

import contextlib
import itertools
import os
import pickle
import signal
import threading
import time

import pytest
import support
import tasks

pytestmark = pytest.mark.ours

if support.OURS:
    from ringpool import InitializerError, RingpoolError, WorkerDied


SQUARES = [n * n for n in range(40)]


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT, signal.SIGBUS]
)
def test_a_worker_that_is_killed_fails_its_call(method, make_pool, number):
    pool = make_pool(2, method=method)
    pids = {worker.pid for worker in pool._pool}
    result = pool.apply_async(tasks.killed, (number,))
    with pytest.raises(WorkerDied) as caught:
        result.get(40)
    error = caught.value
    assert error.signal == number
    assert error.exitcode == -number
    assert error.pid in pids
    assert error.function.endswith("tasks.killed")
    for text in (signal.Signals(number).name, str(error.pid), "tasks.killed"):
        assert text in str(error)
    assert pool.apply(tasks.square, (3,)) == 9


def test_a_real_segmentation_fault(method, make_pool):
    pool = make_pool(2, method=method)
    with pytest.raises(WorkerDied) as caught:
        pool.apply(tasks.segfault)
    assert caught.value.signal == signal.SIGSEGV
    assert pool.map(tasks.square, range(40)) == SQUARES


def test_abort(make_pool):
    pool = make_pool(1)
    with pytest.raises(WorkerDied) as caught:
        pool.apply(tasks.abort)
    assert caught.value.signal == signal.SIGABRT


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_os_exit_is_a_death(method, make_pool, code):
    pool = make_pool(2, method=method)
    with pytest.raises(WorkerDied) as caught:
        pool.apply(tasks.leave, (code,))
    assert caught.value.exitcode == code
    assert caught.value.signal is None
    assert caught.value.function.endswith("tasks.leave")
    assert pool.apply(tasks.square, (3,)) == 9


def test_the_error_is_a_ringpool_error_and_pickles(make_pool):
    pool = make_pool(1)
    with pytest.raises(RingpoolError) as caught:
        pool.apply(tasks.leave, (3,))
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is WorkerDied
    assert (copy.pid, copy.exitcode, copy.function, str(copy)) == (
        caught.value.pid,
        3,
        caught.value.function,
        str(caught.value),
    )


def test_other_calls_do_not_notice(method, make_pool):
    pool = make_pool(2, method=method)
    results = [pool.apply_async(tasks.killed_at_twenty, (n,)) for n in range(40)]
    for n, result in enumerate(results):
        if n == 20:
            with pytest.raises(WorkerDied):
                result.get(40)
        else:
            assert result.get(40) == n * n


def test_dead_workers_are_replaced(method, make_pool):
    pool = make_pool(3, method=method)
    before = {worker.pid for worker in pool._pool}
    for _ in range(3):
        with pytest.raises(WorkerDied):
            pool.apply(tasks.killed, (signal.SIGKILL,))

    def replaced():
        workers = list(pool._pool)
        return len(workers) == 3 and all(w.is_alive() for w in workers) and {w.pid for w in workers} != before

    assert support.eventually(replaced)
    # They are alive before they take tasks.
    assert support.eventually(lambda: len(set(pool.map(tasks.pid_after, [0.2] * 3, 1))) == 3)


def test_an_idle_worker_that_is_killed_costs_nothing(method, make_pool):
    pool = make_pool(2, method=method)
    for _ in range(3):
        victim = pool._pool[0].pid
        os.kill(victim, signal.SIGKILL)
        assert pool.map(tasks.square, range(40)) == SQUARES
        assert support.eventually(
            lambda victim=victim: victim not in {worker.pid for worker in list(pool._pool)}
        )


def test_all_workers_killed_at_once(method, make_pool):
    pool = make_pool(3, method=method)
    for worker in list(pool._pool):
        os.kill(worker.pid, signal.SIGKILL)
    assert pool.map(tasks.square, range(40)) == SQUARES


def test_dead_workers_leave_no_zombies(make_pool):
    pool = make_pool(2)
    for _ in range(5):
        with pytest.raises(WorkerDied):
            pool.apply(tasks.leave, (1,))
    assert support.eventually(lambda: not [pid for pid in support.descendants() if not support.alive(pid)])


def test_a_killed_worker_wakes_a_callback(make_pool):
    pool = make_pool(1)
    wrong = []
    pool.apply_async(tasks.killed, (signal.SIGKILL,), callback=print, error_callback=wrong.append).wait(40)
    assert support.eventually(lambda: len(wrong) == 1)
    assert isinstance(wrong[0], WorkerDied)


def test_close_and_join_after_a_death(make_pool, method):
    pool = make_pool(2, method=method)
    result = pool.apply_async(tasks.killed, (signal.SIGKILL,))
    more = [pool.apply_async(tasks.square, (n,)) for n in range(20)]
    pool.close()
    pool.join()
    assert [r.get() for r in more] == SQUARES[:20]
    with pytest.raises(WorkerDied):
        result.get()


# Chunks


@pytest.mark.parametrize("function", [tasks.killed_at_five, tasks.leave_at_five, tasks.segfault_at_five])
@pytest.mark.parametrize("chunksize", [None, 1, 5, 40])
def test_a_map_raises_the_death_of_an_item(make_pool, function, chunksize):
    pool = make_pool(2)
    with pytest.raises(WorkerDied) as caught:
        pool.map(function, range(40), chunksize)
    assert caught.value.function.endswith(f"tasks.{function.__name__}")
    assert pool.map(tasks.square, range(40), chunksize) == SQUARES


@pytest.mark.parametrize("chunksize", [2, 8, 40])
def test_the_other_items_of_a_chunk_are_run_once(method, make_pool, tmp_path, chunksize):
    pool = make_pool(2, method=method)
    with pytest.raises(WorkerDied):
        pool.starmap(note_and_die_at_five, [(str(tmp_path), n) for n in range(40)], chunksize)
    runs = {n: len((tmp_path / str(n)).read_text().split()) for n in range(40)}
    assert runs == dict.fromkeys(range(40), 1)


def note_and_die_at_five(directory, value):
    tasks.attempt(f"{directory}/{value}")
    if value == 5:
        tasks.killed(signal.SIGKILL)
    return value


@pytest.mark.parametrize("name", ["imap", "imap_unordered"])
@pytest.mark.parametrize("chunksize", [1, 8])
def test_an_iterator_loses_one_item(make_pool, name, chunksize, method):
    pool = make_pool(2, method=method)
    iterator = getattr(pool, name)(tasks.killed_at_five, range(40), chunksize)
    got, died = [], 0
    while True:
        try:
            got.append(next(iterator))
        except StopIteration:
            break
        except WorkerDied:
            died += 1
    assert died == 1
    assert sorted(got) == [n * n for n in range(40) if n != 5]


def test_several_deaths_in_one_map(make_pool):
    pool = make_pool(2)
    iterator = pool.imap(die_at_every_tenth, range(40), 20)
    outcomes = []
    for _ in range(40):
        try:
            outcomes.append(next(iterator))
        except WorkerDied:
            outcomes.append("died")
    assert outcomes == ["died" if n % 10 == 0 else n for n in range(40)]


def die_at_every_tenth(value):
    if value % 10 == 0:
        tasks.killed(signal.SIGKILL)
    return value


def test_workers_are_killed_from_outside_all_the_time(make_pool):
    """What is killed is tried again; nothing hangs and nothing is lost."""
    pool = make_pool(2, retries=14)
    stop = threading.Event()

    def storm():
        for n in itertools.count():
            if stop.wait(0.03):
                return
            workers = list(pool._pool)
            if workers:
                with contextlib.suppress(ProcessLookupError, TypeError):
                    os.kill(workers[n % len(workers)].pid, signal.SIGKILL)

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        for _ in range(10):
            assert pool.map(tasks.square, range(2000), 50) == [n * n for n in range(2000)]
            assert list(pool.imap(tasks.square, range(500))) == [n * n for n in range(500)]
    finally:
        stop.set()
        thread.join()
    assert pool.map(tasks.square, range(40)) == SQUARES


def test_deaths_while_large_values_travel(make_pool):
    pool = make_pool(2)
    value = bytes(3_000_000)
    for _ in range(5):
        results = [pool.apply_async(tasks.identity, (value,)) for _ in range(4)]
        os.kill(pool._pool[0].pid, signal.SIGKILL)
        for result in results:
            try:
                assert result.get(40) == value
            except WorkerDied as error:
                assert error.signal == signal.SIGKILL
        time.sleep(0.05)
    assert pool.apply(len, (value,)) == len(value)


def test_a_stopped_worker_keeps_its_task_and_holds_up_nobody(make_pool):
    pool = make_pool(2)
    pids = {pool.apply(tasks.pid) for _ in range(20)}
    slow = pool.apply_async(tasks.pid_after, (0.5,))
    time.sleep(0.1)
    victim = pool._pool[0].pid
    os.kill(victim, signal.SIGSTOP)
    try:
        # Tasks that the stopped worker has taken wait for it: so each of these may be the one.
        results = [pool.apply_async(tasks.square, (n,)) for n in range(40)]
        assert support.eventually(lambda: sum(r.ready() for r in results) >= 39)
    finally:
        os.kill(victim, signal.SIGCONT)
    assert [r.get(40) for r in results] == SQUARES
    assert slow.get(40) and pids


# Retries


@pytest.mark.parametrize("times", [1, 2, 3])
def test_retries_of_the_pool(method, make_pool, tmp_path, times):
    pool = make_pool(2, method=method, retries=3)
    path = str(tmp_path / "runs")
    assert pool.apply(tasks.die_first, (path, times, "done")) == "done"
    assert tasks.attempt(path) == times + 2


def test_retries_end(make_pool, tmp_path):
    pool = make_pool(2, retries=2)
    path = str(tmp_path / "runs")
    with pytest.raises(WorkerDied) as caught:
        pool.apply(tasks.die_first, (path, 100, "done"))
    assert caught.value.attempt == 3
    assert tasks.attempt(path) == 4


def test_retries_of_a_call(make_pool, tmp_path):
    pool = make_pool(2)
    assert pool.apply(tasks.die_first, (str(tmp_path / "a"), 2, 1), retries=2) == 1
    assert pool.apply_async(tasks.die_first, (str(tmp_path / "b"), 2, 1), retries=2).get(40) == 1
    with pytest.raises(WorkerDied):
        pool.apply(tasks.die_first, (str(tmp_path / "c"), 2, 1), retries=1)
    with pytest.raises(WorkerDied):
        pool.apply(tasks.die_first, (str(tmp_path / "d"), 1, 1))


def test_a_call_may_have_fewer_retries_than_its_pool(make_pool, tmp_path):
    pool = make_pool(2, retries=5)
    with pytest.raises(WorkerDied):
        pool.apply(tasks.die_first, (str(tmp_path / "a"), 1, 1), retries=0)


@pytest.mark.parametrize("chunksize", [None, 1, 4])
def test_retries_of_maps(make_pool, tmp_path, chunksize):
    pool = make_pool(2)
    items = [(str(tmp_path / str(n)), n % 3, n) for n in range(12)]
    assert pool.starmap(tasks.die_first, items, chunksize, retries=2) == list(range(12))
    for n in range(12):
        assert len((tmp_path / str(n)).read_text().split()) == n % 3 + 1


@pytest.mark.parametrize("name", ["imap", "imap_unordered"])
def test_retries_of_iterators(make_pool, tmp_path, name):
    pool = make_pool(2)
    items = [(str(tmp_path / str(n)), n % 3, n) for n in range(12)]
    got = getattr(pool, name)(die_first_of, items, 4, retries=2)
    assert sorted(got) == list(range(12))


def die_first_of(item):
    return tasks.die_first(*item)


def test_exceptions_are_not_retried(make_pool, tmp_path):
    pool = make_pool(2, retries=3)
    path = str(tmp_path / "runs")
    with pytest.raises(ValueError, match="not yet"):
        pool.apply(tasks.raise_first, (path, 1, "done"))
    assert tasks.attempt(path) == 2


@pytest.mark.parametrize("retries", [-1, 15, 1000])
def test_retries_out_of_range(make_pool, retries):
    from support import make

    with pytest.raises(ValueError, match="retries"):
        make(1, retries=retries)
    pool = make_pool(1)
    with pytest.raises(ValueError, match="retries"):
        pool.apply(abs, (1,), retries=retries)


@pytest.mark.parametrize("retries", ["3", 1.5])
def test_retries_of_another_type(make_pool, retries):
    pool = make_pool(1)
    for call in (pool.map, pool.map_async, pool.imap, pool.imap_unordered):
        with pytest.raises(TypeError, match="retries"):
            call(abs, [1], retries=retries)


# Initializers


def all_calls(pool):
    return [
        lambda: pool.apply(tasks.square, (1,)),
        lambda: pool.apply_async(tasks.square, (1,)).get(40),
        lambda: pool.map(tasks.square, range(10)),
        lambda: list(pool.imap(tasks.square, range(10))),
        lambda: list(pool.imap_unordered(tasks.square, range(10))),
    ]


@pytest.mark.parametrize(
    ("initializer", "text"),
    [(tasks.failing_initializer, "LookupError: no such model"), (tasks.exiting_initializer, "SystemExit")],
)
def test_an_initializer_that_fails_is_reported(method, initializer, text, capfd):
    from support import make

    with pytest.raises(InitializerError, match=text) as caught:
        pool = make(2, initializer, method=method)
        try:
            for call in all_calls(pool):
                with pytest.raises(InitializerError, match=text):
                    call()
            pool.apply(tasks.square, (1,))
        finally:
            pool.terminate()
            pool.join()
    assert initializer.__name__ in str(caught.value)
    assert isinstance(caught.value, RingpoolError)


def test_a_failing_initializer_is_not_run_for_ever(make_pool, tmp_path, method):
    path = tmp_path / "starts"
    with pytest.raises(InitializerError):
        make_pool(2, tasks.failing_initializer, (str(path),), method=method).apply(tasks.square, (1,))
    time.sleep(0.5)
    first = len(path.read_text().split())
    time.sleep(0.5)
    assert len(path.read_text().split()) == first <= 4


def test_work_submitted_before_the_initializer_failed(make_pool):
    pool = make_pool(1, slow_and_failing)
    results = [pool.apply_async(tasks.square, (n,)) for n in range(20)]
    results.append(pool.map_async(tasks.square, range(20)))
    for result in results:
        with pytest.raises(InitializerError, match="after a while"):
            result.get(40)
    pool.close()
    pool.join()


def slow_and_failing():
    time.sleep(0.3)
    raise ValueError("after a while")


def test_an_initializer_that_dies(make_pool, tmp_path):
    path = tmp_path / "starts"
    with pytest.raises(RingpoolError):
        make_pool(2, tasks.dying_initializer, (str(path),)).apply(tasks.square, (1,))
    time.sleep(0.3)
    first = len(path.read_text().split())
    time.sleep(0.5)
    assert len(path.read_text().split()) <= first + 1 < 200


def test_initargs_that_the_worker_cannot_load(make_pool):
    with pytest.raises(RingpoolError):
        make_pool(1, tasks.keep_given, (tasks.Explosive(),), method="spawn").apply(tasks.square, (1,))


def test_initargs_that_do_not_pickle_raise_at_once():
    from support import make

    before = support.children()
    for method in ("spawn", "forkserver"):
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            make(2, tasks.keep_given, (lambda: 5,), method=method)
    assert support.eventually(lambda: not support.children() - before)


def test_a_replacement_whose_initializer_fails(make_pool, tmp_path):
    flag = tmp_path / "fail"
    pool = make_pool(1, fail_if_there, (str(flag),))
    assert pool.apply(tasks.square, (3,)) == 9
    flag.write_text("")
    with pytest.raises(WorkerDied):
        pool.apply(tasks.killed, (signal.SIGKILL,))
    with pytest.raises(InitializerError, match="there now"):
        pool.apply(tasks.square, (3,))


def fail_if_there(path):
    if os.path.exists(path):
        raise ValueError("there now")


def test_terminate_and_join_after_an_initializer_failed(make_pool):
    for end in ("close", "terminate"):
        pool = make_pool(2, tasks.failing_initializer)
        with pytest.raises(InitializerError):
            pool.apply(tasks.square, (1,))
        getattr(pool, end)()
        pool.join()
