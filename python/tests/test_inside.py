"""What libraries look at inside a pool, and how they change it."""

import inspect
import multiprocessing
import multiprocessing.dummy
import multiprocessing.pool
import os
import signal
import sys

import pytest
import support
import tasks
from support import METHODS, Pool, make


def test_it_is_a_pool(make_pool):
    pool = make_pool(1)
    assert isinstance(pool, multiprocessing.pool.Pool)
    assert issubclass(Pool, multiprocessing.pool.Pool)


@pytest.mark.ours
def test_what_can_be_imported():
    import ringpool
    import ringpool.pool

    assert ringpool.Pool is ringpool.pool.Pool
    assert ringpool.pool.ThreadPool is multiprocessing.pool.ThreadPool
    assert ringpool.TimeoutError is multiprocessing.TimeoutError
    for name in ("AsyncResult", "MapResult", "IMapIterator", "IMapUnorderedIterator", "MaybeEncodingError"):
        assert hasattr(ringpool.pool, name)
    assert issubclass(ringpool.WorkerDied, ringpool.RingpoolError)
    assert issubclass(ringpool.InitializerError, ringpool.RingpoolError)
    assert issubclass(ringpool.RingpoolError, Exception)


@pytest.mark.ours
def test_the_rest_of_multiprocessing_can_be_imported():
    """A program that changes `import multiprocessing` to `import ringpool as multiprocessing` goes on."""
    import ringpool

    missing = [
        name
        for name in multiprocessing.__all__
        if not hasattr(ringpool, name) and name not in {"context", "reducer", "set_forkserver_preload"}
    ]
    assert missing == []
    assert ringpool.cpu_count is multiprocessing.cpu_count
    assert ringpool.Process is multiprocessing.Process


@pytest.mark.ours
def test_contexts_make_our_pools():
    import ringpool

    for method in METHODS:
        with ringpool.get_context(method).Pool(1) as pool:
            assert isinstance(pool, ringpool.Pool)
            assert pool._ctx.get_start_method() == method
            assert pool.apply(tasks.square, (3,)) == 9


def test_signatures_are_multiprocessing_s():
    for name in (
        "apply",
        "apply_async",
        "map",
        "map_async",
        "starmap",
        "starmap_async",
        "imap",
        "imap_unordered",
        "close",
        "terminate",
        "join",
    ):
        theirs = inspect.signature(getattr(multiprocessing.pool.Pool, name)).parameters
        ours = inspect.signature(getattr(Pool, name)).parameters
        assert list(ours)[: len(theirs)] == list(theirs), name
        for parameter in theirs:
            assert ours[parameter].default == theirs[parameter].default, (name, parameter)
        for parameter in list(ours)[len(theirs) :]:
            assert ours[parameter].kind in (
                inspect.Parameter.KEYWORD_ONLY,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
            )
            assert ours[parameter].default is not inspect.Parameter.empty


def test_the_list_of_workers(shared_pool):
    assert isinstance(shared_pool._pool, list)
    assert len(shared_pool._pool) == shared_pool._processes == 2
    for worker in shared_pool._pool:
        assert isinstance(worker, multiprocessing.process.BaseProcess)
        assert isinstance(worker.pid, int)
        assert worker.is_alive()
        assert worker.exitcode is None
        assert "PoolWorker-" in worker.name
        assert worker.daemon
    assert {worker.pid for worker in shared_pool._pool} >= {shared_pool.apply(tasks.pid)}


def test_exit_codes_of_workers(make_pool):
    pool = make_pool(2)
    workers = list(pool._pool)
    pool.close()
    pool.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    pool = make_pool(2)
    workers = list(pool._pool)
    pool.terminate()
    pool.join()
    assert all(worker.exitcode is not None for worker in workers)
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.ours
def test_the_exit_code_of_a_killed_worker(make_pool, method):
    pool = make_pool(1, method=method)
    worker = pool._pool[0]
    os.kill(worker.pid, signal.SIGKILL)
    assert support.eventually(lambda: worker not in list(pool._pool))
    assert pool.apply(tasks.square, (3,)) == 9


def test_attributes(make_pool):
    context = multiprocessing.get_context("fork")
    pool = Pool(2, tasks.keep_given, (1,), 10, context)
    try:
        assert pool._ctx is context
        assert pool._state == "RUN"
        assert pool._maxtasksperchild == 10
        assert pool._initializer is tasks.keep_given
        assert pool._initargs == (1,)
        assert len(pool._cache) == 0
        result = pool.apply_async(tasks.nap, (0.3,))
        assert len(pool._cache) == 1
        result.wait()
        assert support.eventually(lambda: len(pool._cache) == 0)
        pool._repopulate_pool()
        assert len(pool._pool) == 2
    finally:
        pool.terminate()
        pool.join()
    assert pool._state == "TERMINATE"


def test_workers_are_active_children(make_pool):
    pool = make_pool(2)
    assert {worker.pid for worker in pool._pool} <= {child.pid for child in multiprocessing.active_children()}
    pool.terminate()
    pool.join()
    assert not {worker.pid for worker in pool._pool} & {
        child.pid for child in multiprocessing.active_children()
    }


# Subclasses


class Counting(Pool):
    def __init__(self, *args, **kwds):
        self.calls = 0
        super().__init__(*args, **kwds)

    def apply_async(self, *args, **kwds):
        self.calls += 1
        return super().apply_async(*args, **kwds)


def test_subclasses():
    with Counting(1) as pool:
        assert pool.apply_async(abs, (-1,)).get() == 1
        assert pool.calls == 1
        assert pool.map(abs, [-1]) == [1]
        assert f"{__name__}.Counting state=RUN" in repr(pool)


class NotDaemonic(multiprocessing.get_context("fork").Process):
    """The recipe for nested pools that is found everywhere."""

    @property
    def daemon(self):
        return False

    @daemon.setter
    def daemon(self, value):
        pass


class NotDaemonicContext(type(multiprocessing.get_context("fork"))):
    Process = NotDaemonic


def nested_with_multiprocessing(values):
    with multiprocessing.pool.Pool(1) as pool:
        return pool.map(abs, values)


def test_the_recipe_of_a_context_without_daemons():
    with Pool(2, context=NotDaemonicContext()) as pool:
        assert all(isinstance(worker, NotDaemonic) for worker in pool._pool)
        assert pool.apply(nested_with_multiprocessing, ([-1, -2],)) == [1, 2]
        pool.close()
        pool.join()


class NotDaemonicPool(Pool):
    @staticmethod
    def Process(ctx, *args, **kwds):
        return NotDaemonic(*args, **kwds)


def test_the_recipe_of_another_process_class():
    with NotDaemonicPool(2) as pool:
        assert all(isinstance(worker, NotDaemonic) for worker in pool._pool)
        assert pool.apply(nested_with_multiprocessing, ([-1, -2],)) == [1, 2]
        pool.close()
        pool.join()


class Bootstrapped(multiprocessing.get_context("fork").Process):
    def run(self):
        os.environ["RUN_WAS_CALLED"] = "yes"
        super().run()


def test_run_of_a_process_class_is_called():
    class Context(type(multiprocessing.get_context("fork"))):
        Process = Bootstrapped

    with Pool(1, context=Context()) as pool:
        assert pool.apply(tasks.environment, ("RUN_WAS_CALLED",)) == "yes"


def test_hooks_of_bootstrap_are_called(monkeypatch):
    """As coverage, debuggers and profilers install them."""
    original = multiprocessing.process.BaseProcess._bootstrap

    def bootstrap(self, *args, **kwds):
        os.environ["BOOTSTRAP_WAS_CALLED"] = "yes"
        return original(self, *args, **kwds)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "_bootstrap", bootstrap)
    with make(1) as pool:
        assert pool.apply(tasks.environment, ("BOOTSTRAP_WAS_CALLED",)) == "yes"


def test_fork_hooks_run_in_workers(tmp_path):
    text = """
import os, support
state = []
def look():
    return state
if __name__ == "__main__":
    os.register_at_fork(
        before=lambda: state.append("before"),
        after_in_parent=lambda: state.append("parent"),
        after_in_child=lambda: state.append("child"),
    )
    with support.make(1) as pool:
        print(*pool.apply(look))
        print(*state)
"""
    code, out, err = support.run(tmp_path / "program.py", text)
    assert code == 0, err
    assert out.splitlines() == ["before child", "before parent"]


def test_finalizers_run_in_workers(tmp_path, method):
    """multiprocessing's own, which managers and queues count on, and atexit's do not."""
    path = tmp_path / "ends"
    pool = make(1, register_finalizer, (str(path),), method=method)
    pool.apply(tasks.nothing)
    pool.close()
    pool.join()
    assert path.read_text()


def register_finalizer(path):
    from multiprocessing import util

    util.Finalize(None, tasks.attempt, args=(path,), exitpriority=10)


def test_output_of_workers_is_flushed(tmp_path):
    text = """
import support
if __name__ == "__main__":
    pool = support.make(1)
    pool.apply(print, ("from the worker",), {"end": "."})
    pool.close()
    pool.join()
"""
    code, out, err = support.run(tmp_path / "program.py", text)
    assert (code, out) == (0, "from the worker."), err


# What there is beside


def test_managers_make_pools_of_their_own():
    with multiprocessing.Manager() as manager:
        pool = manager.Pool(1)
        assert pool.apply(abs, (-1,)) == 1
        pool.terminate()
        pool.join()


def test_objects_of_managers_as_arguments(shared_pool):
    with multiprocessing.Manager() as manager:
        found = manager.dict()
        lock = manager.Lock()
        queue = manager.Queue()
        shared_pool.starmap(use_manager, [(found, lock, queue, n) for n in range(10)])
        assert dict(found) == {n: n * n for n in range(10)}
        assert sorted(queue.get() for _ in range(10)) == list(range(10))


def use_manager(found, lock, queue, value):
    with lock:
        found[value] = value * value
    queue.put(value)


def test_logging_through_a_queue(method, make_pool):

    queue = multiprocessing.get_context(method).Queue()
    pool = make_pool(2, start_logging, (queue,), method=method)
    pool.map(log, range(5))
    assert sorted(queue.get(timeout=20).getMessage() for _ in range(5)) == [f"task {n}" for n in range(5)]
    queue.close()


def start_logging(queue):
    import logging
    import logging.handlers

    logger = logging.getLogger("workers")
    logger.handlers = [logging.handlers.QueueHandler(queue)]
    logger.setLevel(logging.INFO)


def log(value):
    import logging

    logging.getLogger("workers").info("task %d", value)


def test_shared_memory_of_the_standard_library(shared_pool):
    from multiprocessing import shared_memory

    block = shared_memory.SharedMemory(create=True, size=100)
    try:
        shared_pool.map(write_shared, [(block.name, n) for n in range(10)])
        assert bytes(block.buf[:10]) == bytes(range(10))
    finally:
        block.close()
        block.unlink()


def write_shared(pair):
    from multiprocessing import shared_memory

    block = shared_memory.SharedMemory(name=pair[0])
    block.buf[pair[1]] = pair[1]
    block.close()


def test_thread_pools_are_untouched():
    with multiprocessing.pool.ThreadPool(2) as pool:
        assert pool.map(lambda n: n + 1, range(3)) == [1, 2, 3]
        assert not isinstance(pool, support.Pool) or support.Pool is multiprocessing.pool.Pool
    with multiprocessing.dummy.Pool(1) as pool:
        assert pool.apply(abs, (-1,)) == 1


def test_the_recursion_limit_and_the_path(make_pool):
    pool = make_pool(1, method="spawn")
    assert pool.apply(sys.getrecursionlimit) == sys.getrecursionlimit()
    assert str(support.HERE) in pool.apply(tasks.whoami)["path"]
