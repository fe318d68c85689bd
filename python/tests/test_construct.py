"""Making a pool: its arguments, what it checks, and how its workers begin."""

import functools
import inspect
import multiprocessing
import os
import threading

import pytest
import support
import tasks
from support import METHODS, Pool, make


def default_processes():
    count = getattr(os, "process_cpu_count", os.cpu_count)
    return count() or 1


def test_signature():
    names = list(inspect.signature(Pool.__init__).parameters)
    assert names[:6] == ["self", "processes", "initializer", "initargs", "maxtasksperchild", "context"]


def test_default_number_of_processes():
    with Pool() as pool:
        assert len(pool._pool) == default_processes()
        assert pool.apply(tasks.square, (3,)) == 9


def test_none_is_the_default_number():
    with Pool(None) as pool:
        assert pool._processes == default_processes()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_number_of_processes(count, make_pool):
    pool = make_pool(count)
    assert pool._processes == count
    assert len(pool._pool) == count
    assert len({worker.pid for worker in pool._pool}) == count
    assert all(worker.is_alive() for worker in pool._pool)


def test_positional_arguments():
    context = multiprocessing.get_context("fork")
    with Pool(1, tasks.keep_given, (1, 2), 5, context) as pool:
        assert pool.apply(tasks.get_given) == (1, 2)
        assert pool._maxtasksperchild == 5
        assert pool._ctx is context


@pytest.mark.parametrize("count", [0, -1, -100])
def test_too_few_processes(count):
    with pytest.raises(ValueError, match=r"^Number of processes must be at least 1$"):
        Pool(count)


@pytest.mark.parametrize("count", ["2", 1.5, [2]])
def test_processes_of_another_type(count):
    with pytest.raises(TypeError):
        Pool(count)


@pytest.mark.parametrize("limit", [0, -1, 0.5, "12", 1.0])
def test_bad_maxtasksperchild(limit):
    with pytest.raises(ValueError, match=r"^maxtasksperchild must be a positive int or None$"):
        Pool(1, maxtasksperchild=limit)


@pytest.mark.parametrize("initializer", [5, "print", [print]])
def test_initializer_must_be_callable(initializer):
    with pytest.raises(TypeError, match=r"^initializer must be a callable$"):
        Pool(1, initializer)


def test_checks_come_in_order():
    with pytest.raises(ValueError, match="Number of processes"):
        Pool(0, 5, (), 0)
    with pytest.raises(ValueError, match="maxtasksperchild"):
        Pool(1, 5, (), 0)


def test_a_failed_constructor_leaves_no_process():
    before = support.children()
    for arguments in ((0,), (1, 5), (1, None, (), 0)):
        with pytest.raises((ValueError, TypeError)):
            Pool(*arguments)
    assert support.children() == before


def test_each_start_method(method, make_pool):
    pool = make_pool(2, method=method)
    assert pool.map(tasks.square, range(10)) == [n * n for n in range(10)]


def test_workers_start_in_the_constructor(make_pool):
    before = support.children()
    pool = make_pool(3)
    started = {worker.pid for worker in pool._pool}
    assert len(started) == 3 and started <= support.children() - before


def test_fork_sees_globals_as_of_construction(make_pool):
    tasks.kept.append("before")
    try:
        pool = make_pool(1, method="fork")
        tasks.kept.append("after")
        assert pool.apply(len_of_kept) == 1
    finally:
        tasks.kept.clear()


def len_of_kept():
    return len(tasks.kept)


class FailingContext(type(multiprocessing.get_context("fork"))):
    """Starts two processes and no third."""

    def __init__(self):
        super().__init__()
        self.started = 0

    def Process(self, *args, **kwds):
        self.started += 1
        if self.started > 2:
            raise OSError("no more processes")
        return super().Process(*args, **kwds)


def test_a_worker_that_cannot_start_ends_the_others():
    before = support.children()
    with pytest.raises(OSError, match="no more processes"):
        Pool(4, context=FailingContext())
    assert support.eventually(lambda: support.children() == before)


# Initializers


def test_initializer_runs_once_in_each_worker(method, make_pool, tmp_path):
    path = tmp_path / "starts"
    pool = make_pool(3, tasks.note_start, (str(path),), method=method)
    pool.map(tasks.pid_after, [0.01] * 30, chunksize=1)
    assert support.eventually(lambda: len(path.read_text().split()) == 3)
    assert set(path.read_text().split()) == {str(worker.pid) for worker in pool._pool}


def test_initializer_runs_before_the_first_task(method, make_pool):
    pool = make_pool(2, tasks.keep_given, ("ready",), method=method)
    assert pool.map(call_get_given, range(20), chunksize=1) == [("ready",)] * 20


def call_get_given(_):
    return tasks.get_given()


def test_initializer_without_arguments(make_pool):
    pool = make_pool(1, tasks.ignore_sigterm)
    assert pool.apply(tasks.whoami)["sigterm"] is not None


def test_initializer_is_a_closure_with_fork(make_pool):
    seen = ["closure"]
    pool = make_pool(1, lambda: tasks.keep_given(seen[0]), method="fork")
    assert pool.apply(tasks.get_given) == ("closure",)


def test_fork_pickles_no_initargs(make_pool):
    lock = threading.Lock()
    with open(__file__) as file:
        pool = make_pool(1, tasks.keep_given, (lambda value: value + 1, lock, file), method="fork")
        assert pool.apply(tasks.call_given, (41,)) == 42


def test_initargs_may_be_locks_and_values(method, make_pool):
    context = multiprocessing.get_context(method)
    lock, counter = context.Lock(), context.Value("i", 0, lock=False)
    pool = make_pool(2, tasks.keep_given, (lock, counter), method=method)
    pool.map(tasks.add_to_counter, [50] * 20, chunksize=1)
    assert counter.value == 1000


def test_initargs_may_be_queues(method, make_pool):
    queue = multiprocessing.get_context(method).SimpleQueue()
    pool = make_pool(2, tasks.keep_given, (queue,), method=method)
    pool.map(tasks.put_into_queue, range(10), chunksize=1)
    got = [queue.get() for _ in range(10)]
    assert sorted(value for _, value in got) == list(range(10))
    assert {pid for pid, _ in got} <= {worker.pid for worker in pool._pool}


def test_initargs_may_be_queues_with_threads(method, make_pool):
    queue = multiprocessing.get_context(method).Queue()
    pool = make_pool(2, tasks.keep_given, (queue,), method=method)
    pool.map(tasks.put_into_queue, range(10), chunksize=1)
    assert sorted(queue.get(timeout=20)[1] for _ in range(10)) == list(range(10))
    queue.close()


def test_initargs_may_be_events_and_arrays(method, make_pool):
    context = multiprocessing.get_context(method)
    event, array = context.Event(), context.Array("d", 4)
    pool = make_pool(1, tasks.keep_given, (event,), method=method)
    pool.apply(tasks.set_event)
    assert event.wait(20)
    other = make_pool(1, tasks.keep_given, (array,), method=method)
    other.apply(tasks.fill_array, (2, 2.5))
    assert array[:] == [0, 0, 2.5, 0]


def test_initargs_may_be_connections(method, make_pool):
    ours, theirs = multiprocessing.get_context(method).Pipe()
    pool = make_pool(1, tasks.keep_given, (theirs,), method=method)
    pool.apply(send_through_given, ("hello",))
    assert ours.poll(20) and ours.recv() == "hello"
    ours.close()
    theirs.close()


def send_through_given(value):
    tasks.given[0].send(value)


def test_locks_are_refused_as_arguments_of_tasks(shared_pool):
    lock = multiprocessing.get_context("spawn").Lock()
    with pytest.raises(RuntimeError, match="should only be shared between processes through inheritance"):
        shared_pool.apply(tasks.identity, (lock,))
    assert shared_pool.apply(tasks.square, (4,)) == 16


# Replacement


@pytest.mark.parametrize("limit", [1, 3])
def test_maxtasksperchild(method, make_pool, limit):
    pool = make_pool(1, maxtasksperchild=limit, method=method)
    pids = [pool.apply(tasks.pid) for _ in range(3 * limit)]
    runs = [pids.count(pid) for pid in dict.fromkeys(pids)]
    assert runs == [limit] * 3


def test_maxtasksperchild_counts_chunks(make_pool):
    pool = make_pool(1, maxtasksperchild=2)
    pids = pool.map(tasks.pid, range(12), chunksize=3)
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [6, 6]


def test_replacements_are_initialized(make_pool, tmp_path):
    path = tmp_path / "starts"
    pool = make_pool(1, tasks.note_start, (str(path),), maxtasksperchild=1)
    pids = {pool.apply(tasks.pid) for _ in range(4)}
    assert len(pids) == 4
    assert {str(pid) for pid in pids} <= set(path.read_text().split())


def test_replacements_have_new_numbers(make_pool):
    pool = make_pool(1, maxtasksperchild=1)
    numbers = [pool.apply(tasks.whoami)["identity"][-1] for _ in range(4)]
    assert numbers == sorted(set(numbers))


def test_many_tasks_with_replacement_lose_nothing(method, make_pool):
    pool = make_pool(2, maxtasksperchild=5, method=method)
    assert pool.map(tasks.square, range(60), chunksize=1) == [n * n for n in range(60)]


def test_partial_as_initializer(make_pool):
    pool = make_pool(1, functools.partial(tasks.keep_given, "a"), ("b",))
    assert pool.apply(tasks.get_given) == ("a", "b")


def test_pools_of_different_methods_side_by_side():
    pools = [make(1, method=method) for method in METHODS]
    try:
        results = [pool.apply_async(tasks.square, (n,)) for n, pool in enumerate(pools)]
        assert [result.get(30) for result in results] == [0, 1, 4]
    finally:
        for pool in pools:
            pool.terminate()
            pool.join()
