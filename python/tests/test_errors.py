"""What goes wrong in a task, on its way there, or on its way back."""

import multiprocessing.pool
import pickle
import signal
import traceback
from multiprocessing.pool import MaybeEncodingError, RemoteTraceback

import pytest
import support
import tasks


def test_exceptions_come_back(shared_pool):
    with pytest.raises(ValueError, match=r"^wrong$") as caught:
        shared_pool.apply(tasks.fail)
    assert type(caught.value) is ValueError
    assert caught.value.args == ("wrong",)


def test_the_cause_is_a_remote_traceback(shared_pool):
    for call in (
        lambda: shared_pool.apply(tasks.deep, (2,)),
        lambda: shared_pool.map(tasks.deep, [2]),
        lambda: list(shared_pool.imap(tasks.deep, [2])),
        lambda: list(shared_pool.imap_unordered(tasks.deep, [2])),
        lambda: shared_pool.starmap(tasks.deep, [(2,)]),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        cause = caught.value.__cause__
        assert type(cause) is RemoteTraceback
        assert str(cause) == cause.tb
        assert cause.tb.startswith('\n"""\nTraceback (most recent call last):\n')
        assert cause.tb.endswith('ValueError: in the deep\n"""')
        assert cause.tb.count("in deep") == 3
        assert "tasks.py" in cause.tb


def test_the_traceback_begins_in_the_worker_and_is_printed_here(shared_pool):
    with pytest.raises(ValueError) as caught:
        shared_pool.apply(tasks.fail)
    text = "".join(traceback.format_exception(caught.value))
    assert "in fail" in text
    assert "RemoteTraceback" in text
    assert "direct cause" in text


def test_chains_of_causes_survive_as_text(shared_pool):
    with pytest.raises(ValueError, match="second") as caught:
        shared_pool.apply(tasks.fail_with_cause)
    assert "KeyError: 'first'" in caught.value.__cause__.tb


@pytest.mark.parametrize(
    "error",
    [
        KeyError("key"),
        OSError(2, "No such file", "name"),
        StopIteration(5),
        StopAsyncIteration(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        MemoryError(),
        RecursionError("deep"),
        ExceptionGroup("several", [ValueError(1), KeyError(2)]),
        GeneratorExit("as an exception"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_of_every_kind(fork_pool, error):
    if not isinstance(error, Exception) and not support.OURS:
        pytest.skip("it ends multiprocessing's worker")
    with pytest.raises(type(error)) as caught:
        fork_pool.apply(raise_it, (error,))
    assert type(caught.value) is type(error)
    assert repr(caught.value) == repr(error)
    if support.OURS or type(error) is not StopIteration:  # which ends multiprocessing's chunk silently
        with pytest.raises(type(error)):
            fork_pool.map(raise_it, [error, error])


def raise_it(error):
    raise error


class WithState(Exception):
    def __init__(self, code, hint=None):
        super().__init__(code)
        self.hint = hint


def raise_with_state(code, hint):
    raise WithState(code, hint)


def test_attributes_of_exceptions_survive(shared_pool):
    with pytest.raises(WithState) as caught:
        shared_pool.apply(raise_with_state, (5, "try again"))
    assert caught.value.args == (5,)
    assert caught.value.hint == "try again"


def test_notes_of_exceptions_survive(fork_pool):
    with pytest.raises(ValueError) as caught:
        fork_pool.apply(raise_with_note)
    assert caught.value.__notes__ == ["a note"]


def raise_with_note():
    error = ValueError("text")
    error.add_note("a note")
    raise error


def test_an_exception_returned_is_a_value(shared_pool):
    value = shared_pool.apply(tasks.identity, (ValueError("kept"),))
    assert type(value) is ValueError and value.args == ("kept",)
    assert value.__cause__ is None
    several = shared_pool.map(tasks.identity, [ValueError(n) for n in range(3)])
    assert [e.args for e in several] == [(0,), (1,), (2,)]


def test_a_worker_survives_errors(make_pool):
    pool = make_pool(1)
    pid = pool.apply(tasks.pid)
    for _ in range(20):
        with pytest.raises(ValueError):
            pool.apply(tasks.fail)
    assert pool.apply(tasks.pid) == pid


# Maps


def test_a_map_raises_one_of_its_errors(shared_pool):
    for chunksize in (None, 1, 2, 100):
        with pytest.raises(ValueError) as caught:
            shared_pool.map(tasks.fail_at_three, range(10), chunksize)
        assert caught.value.args == (3,)
    assert shared_pool.map(tasks.square, [2]) == [4]


def test_a_map_waits_for_all_its_chunks(shared_pool, tmp_path):
    path = str(tmp_path / "runs")
    with pytest.raises(ValueError):
        shared_pool.starmap(fail_at_zero_and_note, [(path, n) for n in range(8)], 1)
    with open(path) as file:
        assert len(file.readlines()) == 8


def fail_at_zero_and_note(path, value):
    import time

    if value == 0:
        tasks.attempt(path)
        raise ValueError(value)
    time.sleep(0.02)
    tasks.attempt(path)


def test_a_starmap_raises(shared_pool):
    with pytest.raises(ValueError) as caught:
        shared_pool.starmap(tasks.fail_at, [(2, n) for n in range(5)])
    assert caught.value.args == (2,)


# Pickling of results


def test_results_that_do_not_pickle(shared_pool):
    with pytest.raises(MaybeEncodingError) as caught:
        shared_pool.apply(tasks.hidden)
    error = caught.value
    assert type(error) is MaybeEncodingError
    assert error.value == "<Hidden>"
    assert "hidden for good" in error.exc and error.exc == repr(TypeError("hidden for good"))
    assert str(error).startswith("Error sending result: '<Hidden>'. Reason: ")
    assert isinstance(error.exc, str) and isinstance(error.value, str)
    assert repr(error).startswith("<MaybeEncodingError: ")


def test_results_that_do_not_pickle_in_maps(shared_pool):
    with pytest.raises(MaybeEncodingError):
        shared_pool.map(tasks.hidden_at_three, range(6))
    with pytest.raises(MaybeEncodingError):
        list(shared_pool.imap(tasks.hidden_at_three, range(6)))
    assert shared_pool.map(tasks.square, [3]) == [9]


def test_exceptions_that_do_not_pickle(shared_pool):
    with pytest.raises(MaybeEncodingError) as caught:
        shared_pool.apply(tasks.hidden_error)
    if support.OURS:  # multiprocessing shows its own wrapper
        assert "NotPickled('text')" in caught.value.value
    assert "never" in caught.value.exc
    with pytest.raises(MaybeEncodingError):
        shared_pool.map(raises_hidden, range(4))


def raises_hidden(_):
    raise tasks.NotPickled("text")


@pytest.mark.parametrize("value", ["lambda", "lock", "generator", "module", "file"])
def test_the_usual_results_that_do_not_pickle(fork_pool, value):
    import importlib.util

    if value == "lambda" and support.OURS and importlib.util.find_spec("cloudpickle"):
        pytest.skip("a lambda pickles where cloudpickle is there")
    with pytest.raises(MaybeEncodingError):
        fork_pool.apply(make_unpicklable, (value,))


def make_unpicklable(name):
    import threading

    return {
        "lambda": lambda: lambda: 5,
        "lock": threading.Lock,
        "generator": lambda: (n for n in "a"),
        "module": lambda: threading,
        "file": lambda: open(__file__),
    }[name]()


def test_a_worker_survives_results_that_do_not_pickle(make_pool):
    pool = make_pool(1)
    pid = pool.apply(tasks.pid)
    for _ in range(5):
        with pytest.raises(MaybeEncodingError):
            pool.apply(tasks.hidden)
    assert pool.apply(tasks.pid) == pid


@pytest.mark.ours
def test_results_that_do_not_unpickle(shared_pool):
    with pytest.raises(RuntimeError, match="does not unpickle"):
        shared_pool.apply(tasks.explosive)
    with pytest.raises(RuntimeError, match="does not unpickle"):
        shared_pool.map(tasks.explosive_at_three, range(6))
    with pytest.raises(RuntimeError, match="does not unpickle"):
        list(shared_pool.imap(tasks.explosive_at_three, range(6)))
    assert shared_pool.apply(tasks.square, (3,)) == 9


@pytest.mark.ours
def test_a_result_that_does_not_unpickle_costs_one_item_of_an_iterator(fork_pool):
    iterator = fork_pool.imap(tasks.explosive_at_three, range(6))
    got = []
    for _ in range(6):
        try:
            got.append(next(iterator))
        except RuntimeError:
            got.append("error")
    assert got == [0, 1, 2, "error", 4, 5]


@pytest.mark.ours
def test_exceptions_that_do_not_unpickle(shared_pool):
    """The most usual broken exception there is: its constructor wants more than its arguments."""
    with pytest.raises(Exception) as caught:
        shared_pool.apply(tasks.explosive_error)
    seen = "".join(traceback.format_exception(caught.value))
    assert "ExplosiveError" in seen and "one two" in seen
    assert shared_pool.apply(tasks.square, (3,)) == 9


@pytest.mark.ours
def test_error_callbacks_see_results_that_do_not_unpickle(fork_pool):
    got = []
    fork_pool.apply_async(tasks.explosive, callback=print, error_callback=got.append).wait(30)
    assert support.eventually(lambda: got)
    assert isinstance(got[0], Exception)


# Pickling of arguments


def test_arguments_that_do_not_pickle(shared_pool):
    with pytest.raises(TypeError, match="hidden for good"):
        shared_pool.apply(tasks.identity, (tasks.Hidden(),))
    with pytest.raises((TypeError, pickle.PicklingError)):
        shared_pool.apply(tasks.identity, ((n for n in "a"),))
    assert shared_pool.apply(tasks.square, (3,)) == 9


def test_arguments_that_do_not_pickle_fail_their_own_task(shared_pool):
    results = [shared_pool.apply_async(tasks.describe, (value,)) for value in (1, tasks.Hidden(), 3)]
    assert results[0].get() == "int:1"
    with pytest.raises(TypeError, match="hidden for good"):
        results[1].get()
    assert results[2].get() == "int:3"


def test_apply_async_raises_nothing_for_its_arguments(fork_pool):
    wrong = []
    result = fork_pool.apply_async(tasks.identity, (tasks.Hidden(),), error_callback=wrong.append)
    result.wait(30)
    assert not result.successful()
    assert [type(e) for e in wrong] == [TypeError]


def test_items_that_do_not_pickle(shared_pool):
    items = [1, 2, tasks.Hidden(), 4, 5]
    for call in (
        lambda: shared_pool.map(tasks.identity, items, 1),
        lambda: shared_pool.map(tasks.identity, items, 3),
        lambda: shared_pool.map(tasks.identity, items),
        lambda: list(shared_pool.imap(tasks.identity, items)),
        lambda: list(shared_pool.imap_unordered(tasks.identity, items)),
    ):
        with pytest.raises(TypeError, match="hidden for good"):
            call()
    assert shared_pool.map(tasks.square, [3]) == [9]


def test_an_item_that_does_not_pickle_in_its_place_of_an_iterator(shared_pool):
    iterator = shared_pool.imap(tasks.identity, [1, tasks.Hidden(), 3])
    assert next(iterator) == 1
    with pytest.raises(TypeError, match="hidden for good"):
        next(iterator)
    assert next(iterator) == 3


@pytest.mark.ours
def test_arguments_that_do_not_unpickle_in_the_worker(shared_pool):
    with pytest.raises(RuntimeError, match="does not unpickle"):
        shared_pool.apply(tasks.identity, (tasks.Explosive(),))
    with pytest.raises(RuntimeError, match="does not unpickle"):
        shared_pool.map(tasks.identity, [1, tasks.Explosive(), 3])
    iterator = shared_pool.imap(tasks.identity, [1, tasks.Explosive(), 3])
    assert next(iterator) == 1
    with pytest.raises(RuntimeError):
        next(iterator)
    assert next(iterator) == 3


@pytest.mark.ours
def test_a_worker_that_dies_of_its_argument(fork_pool):
    import ringpool

    with pytest.raises(ringpool.WorkerDied) as caught:
        fork_pool.apply(tasks.identity, (tasks.FatalToLoad(),))
    assert caught.value.exitcode == 9
    assert fork_pool.apply(tasks.square, (3,)) == 9


@pytest.mark.ours
def test_a_function_that_the_worker_does_not_know(make_pool):
    """Defined after the workers were forked: by name it is not there, and cloudpickle is not asked."""
    pool = make_pool(1)
    import types

    module = types.ModuleType("made_later")
    exec("def late(x): return x + 1", module.__dict__)
    import sys

    sys.modules["made_later"] = module
    try:
        with pytest.raises((ModuleNotFoundError, AttributeError)):
            pool.apply(module.late, (1,))
        assert pool.apply(tasks.square, (3,)) == 9
    finally:
        del sys.modules["made_later"]


# What is no Exception


@pytest.mark.ours
@pytest.mark.parametrize("code", [None, 0, 3, "a text"])
def test_sys_exit_is_that_task_s_error(shared_pool, code):
    with pytest.raises(SystemExit) as caught:
        shared_pool.apply(tasks.sys_exit, (code,))
    assert caught.value.code == code
    assert type(caught.value.__cause__) is RemoteTraceback
    assert shared_pool.apply(tasks.square, (3,)) == 9


@pytest.mark.ours
def test_keyboard_interrupt_is_that_task_s_error(shared_pool):
    with pytest.raises(KeyboardInterrupt):
        shared_pool.apply(tasks.interrupt)
    with pytest.raises(KeyboardInterrupt, match="why"):
        shared_pool.apply(tasks.interrupt, ("why",))
    assert shared_pool.apply(tasks.square, (3,)) == 9


@pytest.mark.ours
def test_other_base_exceptions_are_that_task_s_error(shared_pool):
    with pytest.raises(tasks.Odd, match="odd"):
        shared_pool.apply(tasks.odd_exit, ("odd",))
    assert shared_pool.apply(tasks.square, (3,)) == 9


@pytest.mark.ours
def test_sys_exit_in_a_map(shared_pool):
    for chunksize in (None, 1, 3):
        with pytest.raises(SystemExit):
            shared_pool.map(tasks.sys_exit_at_five, range(10), chunksize)
    iterator = shared_pool.imap(tasks.sys_exit_at_five, range(10))
    got = []
    for _ in range(10):
        try:
            got.append(next(iterator))
        except SystemExit as error:
            got.append(("exit", error.code))
    assert got == [n * n if n != 5 else ("exit", 3) for n in range(10)]


@pytest.mark.ours
def test_workers_live_on_after_sys_exit(make_pool):
    pool = make_pool(1)
    pid = pool.apply(tasks.pid)
    for call in (tasks.sys_exit, tasks.interrupt):
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            pool.apply(call)
    assert pool.apply(tasks.pid) == pid


@pytest.mark.ours
def test_an_interrupt_signal_to_a_worker_costs_no_task(shared_pool):
    """Ctrl-C reaches all of the foreground's processes; the parent decides what comes of it."""
    import os

    result = shared_pool.apply_async(tasks.nap_and, (0.5, "done"))
    for worker in shared_pool._pool:
        os.kill(worker.pid, signal.SIGINT)
    assert result.get(30) == "done"


def test_warnings_and_recursion(fork_pool):
    with pytest.raises(RecursionError):
        fork_pool.apply(endless)
    assert fork_pool.apply(tasks.square, (3,)) == 9


def endless():
    return endless()


@pytest.mark.ours
def test_reprs_that_raise_do_not_matter(fork_pool):
    with pytest.raises(MaybeEncodingError):
        fork_pool.apply(bad_repr)
    assert fork_pool.apply(tasks.square, (3,)) == 9


class BadRepr(tasks.Hidden):
    def __repr__(self):
        raise LookupError("no repr")


def bad_repr():
    return BadRepr()


def test_identity_of_the_classes():
    assert multiprocessing.pool.MaybeEncodingError is MaybeEncodingError
    if support.OURS:
        import ringpool.pool

        assert ringpool.pool.MaybeEncodingError is MaybeEncodingError
        assert ringpool.pool.RemoteTraceback is RemoteTraceback


@pytest.mark.ours
def test_timeout_error_is_exported():
    import multiprocessing

    import ringpool

    assert ringpool.TimeoutError is multiprocessing.TimeoutError
