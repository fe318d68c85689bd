"""The package's own modules: how workers are launched, contexts, arrays, errors, pickles."""

import functools
import gc
import itertools
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import types
import weakref
from importlib import metadata
from multiprocessing import reduction

import numpy as np
import pytest

import ringpool
from ringpool import Pool, _launch, _pickle, errors

METHODS = ("fork", "spawn", "forkserver")


def identity(value):
    return value


def whoami(_=None):
    me = multiprocessing.current_process()
    return me.name, me._identity, me.daemon, os.getpid()


def square(number):
    return number * number


def nested(number):
    with Pool(1) as pool:
        return pool.apply(square, (number,)), multiprocessing.current_process().daemon


def in_daemon(connection):
    with Pool(2) as pool:
        connection.send((pool.map(square, [1, 2]), multiprocessing.current_process().daemon))


@pytest.fixture(params=METHODS)
def context(request):
    return multiprocessing.get_context(request.param)


def test_names_and_numbers(context, monkeypatch):
    monkeypatch.setattr(multiprocessing.process, "_process_counter", itertools.count(1))
    with Pool(2, context=context) as pool:
        kind = type(pool._pool[0]).__name__.replace("Process", "PoolWorker")
        assert [worker.name for worker in pool._pool] == [f"{kind}-1", f"{kind}-2"]
        name, number, daemon, pid = pool.apply(whoami)
        assert name == f"{kind}-{number[0]}"
        assert daemon
        assert pid == {worker.name: worker.pid for worker in pool._pool}[name]


class CannotStart(multiprocessing.context.ForkProcess):
    """The fourth of them cannot be started."""

    made = []  # noqa: RUF012

    def __init__(self, *args, **kwds):
        super().__init__(*args, **kwds)
        self.made.append(self)

    def start(self):
        if len(self.made) == 4:
            raise OSError("there is no room for a fourth")
        super().start()


def test_processes_that_were_started_end_if_another_cannot_be():
    context = types.SimpleNamespace(Process=CannotStart, get_start_method=lambda: "fork")
    with pytest.raises(OSError, match=r"^there is no room for a fourth$"):
        Pool(5, context=context)
    assert len(CannotStart.made) == 4
    assert all(process.exitcode is not None for process in CannotStart.made[:3])


def test_a_process_without_an_id_is_refused():
    from multiprocessing.dummy import DummyProcess

    class Threads(Pool):
        @staticmethod
        def Process(ctx, *args, **kwds):
            return DummyProcess(target=lambda: None)

    with pytest.raises(TypeError, match="workers of a pool are processes"):
        Threads(1)


class NotDaemonic(multiprocessing.context.ForkProcess):
    @property
    def daemon(self):
        return False

    @daemon.setter
    def daemon(self, value):
        pass


def test_process_is_a_hook():
    class Static(Pool):
        @staticmethod
        def Process(ctx, *args, **kwds):
            assert ctx is multiprocessing.get_context("fork")
            return NotDaemonic(*args, **kwds)

    class Method(Pool):
        def Process(self, *args, **kwds):
            process = super().Process(*args, **kwds)
            process.__class__ = NotDaemonic
            return process

    class Attribute(Pool):
        Process = NotDaemonic

    for kind in (Static, Method, Attribute):
        with kind(1, context=multiprocessing.get_context("fork")) as pool:
            assert isinstance(pool._pool[0], NotDaemonic)
            assert pool.apply(whoami)[2] is False


def test_the_list_of_workers_stays_whole():
    with Pool(2) as pool:
        workers = pool._pool
        before = list(workers)
        with pytest.raises(ringpool.WorkerDied):
            pool.apply(os._exit, (3,))
        while True:
            assert len(workers) == 2
            if set(workers) != set(before):
                break
        assert pool._pool is workers
        (gone,) = set(before) - set(workers)
        assert gone.exitcode == 3
        assert pool.map(square, range(4)) == [0, 1, 4, 9]


def test_a_daemonic_process_has_a_pool(context):
    ours, theirs = context.Pipe()
    process = context.Process(target=in_daemon, args=(theirs,), daemon=True)
    process.start()
    assert ours.recv() == ([1, 4], True)
    process.join()


def test_a_pool_in_a_worker(context):
    with Pool(2, context=context) as pool:
        assert pool.map(nested, range(4)) == [(n * n, True) for n in range(4)]


def test_threads_of_a_daemonic_process_start_pools_at_once():
    config = multiprocessing.current_process()._config
    config["daemon"] = True
    try:
        results = []

        def start():
            with Pool(1) as pool:
                results.append(pool.apply(square, (3,)))

        threads = [threading.Thread(target=start) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [9] * 6
        assert config["daemon"] is True
    finally:
        del config["daemon"]


def interrupted_and_alive(_):
    os.kill(os.getpid(), signal.SIGINT)
    # What a task runs can be interrupted as ever.
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return child.stdout, signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_workers_are_not_interrupted(context):
    with Pool(1, context=context) as pool:
        assert pool.apply(interrupted_and_alive, (1,)) == ("True\n", False)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_locks_travel_with_a_process(context):
    with Pool(2, identity, (context.Lock(),), context=context) as pool:
        assert pool.map(square, range(3)) == [0, 1, 4]


def test_a_closure_as_initializer(context):
    pytest.importorskip("cloudpickle")
    reader, writer = context.Pipe(duplex=False)

    def tell(connection):
        connection.send(os.getpid())

    with Pool(1, tell, (writer,), context=context) as pool:
        assert reader.recv() == pool._pool[0].pid


@pytest.mark.parametrize("method", METHODS)
def test_programs_from_standard_input(method):
    pytest.importorskip("cloudpickle")
    program = f"""
import ringpool
def double(number):
    return 2 * number
with ringpool.get_context({method!r}).Pool(2) as pool:
    print(pool.map(double, [1, 2]), pool.map(lambda text: text + "!", "ab"), __file__)
"""
    run = subprocess.run([sys.executable], input=program, capture_output=True, text=True)
    assert run.stdout == "[2, 4] ['a!', 'b!'] <stdin>\n", run.stderr


@pytest.mark.parametrize("method", [None, *METHODS])
def test_contexts_make_our_pools(method):
    context = ringpool.get_context(method)
    with context.Pool(1, identity, (1,), 5) as pool:
        assert type(pool) is Pool
        assert pool._maxtasksperchild == 5
        assert pool._ctx.get_start_method() == multiprocessing.get_context(method).get_start_method()
        assert pool.apply(square, (2,)) == 4
    # The original is as it was.
    with multiprocessing.get_context(method).Pool(1) as theirs:
        assert type(theirs) is multiprocessing.pool.Pool


def test_the_rest_of_multiprocessing_is_there():
    theirs = set(multiprocessing.__all__) - {"reducer", "set_start_method", "Pool", "get_context"}
    theirs -= {name for name in theirs if not hasattr(multiprocessing, name)}
    for name in sorted(theirs & set(ringpool.__all__)):
        assert getattr(ringpool, name) == getattr(multiprocessing, name)
    assert theirs <= set(ringpool.__all__)


def test_version():
    assert ringpool.__version__ == metadata.version("ringpool")
    with pytest.raises(AttributeError):
        ringpool.nothing  # noqa: B018


def test_a_dropped_pool_ends():
    pool = Pool(2)
    processes = list(pool._pool)
    seen = weakref.ref(pool)
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        del pool
        gc.collect()
    assert seen() is None
    for process in processes:
        process.join()


def test_empty_takes_the_newest_pool_that_runs(monkeypatch):
    from ringpool import _arrays

    monkeypatch.setattr(_arrays, "living", [])
    assert _arrays._newest() is None
    first, second = Pool(1), Pool(1)
    assert _arrays._newest() is second
    second.terminate()
    assert _arrays._newest() is first
    array = ringpool.empty((3, 4), np.int16)
    assert array.shape == (3, 4)
    assert array.dtype == np.int16
    assert array.flags.writeable
    first.terminate()
    assert _arrays._newest() is None
    array[:] = 7
    assert (array == 7).all()
    for pool in (first, second):
        pool.join()


def made_here(shape):
    array = ringpool.empty(shape)
    array[:] = 1.5
    return array


def test_empty_in_a_worker(context):
    with Pool(1, context=context) as pool:
        result = pool.apply(made_here, ((300, 500),))
    assert result.shape == (300, 500)
    assert (result == 1.5).all()


@pytest.mark.parametrize("shape", [(), 0, 3, (0, 4), (2, 3, 4), (np.int64(2),)])
def test_shapes(shape):
    with Pool(1) as pool:
        array = pool.empty(shape, "f4")
        assert array.shape == np.empty(shape, "f4").shape
        array[...] = 2
        assert (pool.apply(identity, (array,)) == 2).all()


def test_shapes_that_are_none():
    with Pool(1) as pool:
        with pytest.raises(ValueError, match="negative"):
            pool.empty((2, -1))
        with pytest.raises(TypeError, match="references"):
            pool.empty(3, object)


@pytest.mark.parametrize("order", ["C", "F"])
def test_share_keeps_values_and_order(order):
    array = np.asarray(np.arange(12.0).reshape(3, 4), order=order)
    with Pool(1) as pool:
        shared = pool.share(array)
        assert not np.shares_memory(shared, array)
        assert shared.flags.c_contiguous == (order == "C")
        assert (pool.apply(identity, (shared,)) == array).all()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"retries": -1}, ValueError, "retries must be from 0 to 14"),
        ({"retries": 15}, ValueError, "retries must be from 0 to 14"),
        ({"retries": 1.5}, TypeError, "retries must be an integer"),
    ],
)
def test_retries_are_checked(arguments, error, text):
    with pytest.raises(error, match=text):
        Pool(1, **arguments)
    with Pool(1) as pool:
        calls = [
            functools.partial(pool.apply, abs, (1,)),
            functools.partial(pool.apply_async, abs, (1,)),
            functools.partial(pool.map, abs, [1]),
            functools.partial(pool.starmap, abs, [(1,)]),
            functools.partial(pool.map_async, abs, [1]),
            functools.partial(pool.starmap_async, abs, [(1,)]),
            functools.partial(pool.imap, abs, [1]),
            functools.partial(pool.imap_unordered, abs, [1]),
        ]
        for call in calls:
            with pytest.raises(error, match=text):
                call(**arguments)


def test_buffersize_is_checked():
    with Pool(1) as pool:
        for method in (pool.imap, pool.imap_unordered):
            with pytest.raises(ValueError, match="buffersize must be None or > 0"):
                method(abs, [1], buffersize=0)
            with pytest.raises(TypeError, match="buffersize must be an integer or None"):
                method(abs, [1], buffersize="1")


@pytest.mark.parametrize("size", [0, -1])
def test_chunks_have_items(size):
    with Pool(1) as pool:
        for method in (pool.map, pool.starmap, pool.map_async, pool.imap, pool.imap_unordered):
            with pytest.raises(ValueError, match=rf"^Chunksize must be 1\+, not {size}$"):
                method(abs, [1], size)


# Errors


@pytest.mark.parametrize(
    "error",
    [
        errors.WorkerDied("gone", pid=3, exitcode=-9, function="f", worker=1, attempt=2),
        errors.InitializerError("no", pid=4),
        errors.PoolClosed("closed"),
        errors.PoolTerminated("ended"),
        errors.PoolForked("forked"),
        errors.PoolFull("full"),
    ],
)
def test_errors_are_pickled_whole(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert copy.args == error.args
    assert vars(copy) == vars(error)
    assert str(copy) == error.args[0]
    assert isinstance(copy, errors.RingpoolError)


def test_signals_have_names():
    assert errors.WorkerDied("", exitcode=-9).signal is signal.SIGKILL
    assert errors.WorkerDied("", exitcode=-63).signal == 63
    assert errors.WorkerDied("", exitcode=3).signal is None
    assert errors.WorkerDied("").signal is None


# Pickles


def there_and_back(value):
    beside = []
    return _pickle.loads(_pickle.dumps(value, beside), beside)


class Registered:
    pass


def _here():
    return "registered"


def test_reducers_of_multiprocessing_hold_whenever_they_come():
    assert isinstance(there_and_back(Registered()), Registered)
    reduction.register(Registered, lambda _: (_here, ()))
    try:
        assert there_and_back([Registered()]) == ["registered"]
        reduction.register(Registered, lambda _: (str, ("other",)))
        assert there_and_back([Registered()]) == ["other"]
    finally:
        del reduction.ForkingPickler._extra_reducers[Registered]
    assert isinstance(there_and_back(Registered()), Registered)


class PicklesWithin:
    """Pickles something else while it is pickled."""

    def __reduce__(self):
        array = np.arange(4)
        assert (there_and_back([array, array])[1] == array).all()
        return PicklesWithin, ()


def test_pickling_within_pickling():
    first, array, second = there_and_back([PicklesWithin(), np.arange(5), PicklesWithin()])
    assert isinstance(first, PicklesWithin)
    assert isinstance(second, PicklesWithin)
    assert (array == np.arange(5)).all()


def test_nothing_of_a_failure_is_left():
    with pytest.raises(Exception, match="lambda"):
        _pickle.dumps([np.arange(3), lambda: 1], [])
    beside = []
    _pickle.dumps([1, np.arange(3)], beside)
    assert len(beside) == 1


class Seen:
    pass


def test_nothing_is_kept_alive():
    value = Seen()
    seen = weakref.ref(value)
    _pickle.dumps([value], [])
    del value
    assert seen() is None


@pytest.mark.parametrize(
    "view",
    [
        memoryview(b"abc"),
        memoryview(bytearray(b"abcd")).cast("I"),
        memoryview(bytearray(24)).cast("i", (2, 3)),
        memoryview(b"abcdef")[::2],
        memoryview(b""),
        memoryview(np.zeros((2, 3))),
        memoryview(np.zeros(())),
    ],
)
def test_memoryviews(view):
    copy = there_and_back(view)
    assert copy.tobytes() == view.tobytes()
    assert (copy.format, copy.shape, copy.readonly) == (view.format, view.shape, view.readonly)


def test_large_bytes_are_not_copied_on_their_way():
    large = bytes(1 << 20)
    chunks = _pickle.dump_chunks([1, large, "x"], [])
    assert any(chunk is large for chunk in chunks)
    assert pickle.loads(b"".join(chunks)) == [1, large, "x"]


def test_what_workers_find_in_main(monkeypatch):
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec("def early(): return 1\ndef changed(): return 2\nclass Known: pass", main.__dict__)
    forked, spawned = _pickle.MainModule("fork"), _pickle.MainModule("spawn")
    main.__file__ = "main.py"
    from_file = _pickle.MainModule("spawn")
    exec("def changed(): return 3\ndef late(): return 4\nclass Late: pass", main.__dict__)

    def by_value(function, module):
        data, result = _pickle.dump_function(function, module)
        assert type(data) is bytes
        return result

    for function, expected in ((main.early, False), (main.changed, True), (main.late, True)):
        assert by_value(function, forked) is expected
        assert by_value(functools.partial(function), forked) is expected
        assert by_value(function, spawned) is True
        assert by_value(function, from_file) is False
        assert by_value(function, None) is False
    assert by_value(main.Known, forked) is False
    assert by_value(main.Late, forked) is True
    assert by_value(math.sqrt, spawned) is False
    assert _pickle.loads(_pickle.dump_function(main.changed, forked)[0])() == 3


def test_without_cloudpickle_the_error_is_pickles_own(monkeypatch):
    def closure():
        return 1

    with pytest.raises(Exception) as theirs:
        reduction.ForkingPickler.dumps(closure)
    assert _pickle.dump_function(closure)[1] is True
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    for dump in (_pickle.dump_function, lambda value: _pickle.dump_arguments((value,), [])):
        with pytest.raises(type(theirs.value)) as ours:
            dump(closure)
        assert str(ours.value) == str(theirs.value)


def test_functions_among_the_arguments():
    beside = []
    data = _pickle.dump_arguments((lambda: 7, np.arange(3)), beside)
    function, array = _pickle.loads(data, beside)
    assert function() == 7
    assert len(beside) == 1
    assert (array == np.arange(3)).all()


class Unspeakable:
    def __repr__(self):
        raise RuntimeError


def test_what_cannot_be_sent_nor_shown():
    error = _pickle.encoding_error(TypeError("no"), Unspeakable())
    assert isinstance(error, multiprocessing.pool.MaybeEncodingError)
    assert "Unspeakable object" in error.value


def test_seats_go_to_new_processes_only():
    with pytest.raises(RuntimeError):
        pickle.dumps(_launch._worker.Seat(0))
