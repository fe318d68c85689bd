"""Fixtures and deadlines. Every test has a deadline, and leaves no process behind."""

import faulthandler
import gc
import os
import signal
import sys

import pytest
import support

LIMIT = float(os.environ.get("RINGPOOL_TEST_LIMIT", "60"))
FULL = os.environ.get("RINGPOOL_TEST_FULL", "0") not in ("", "0")
# Functions, main modules, initializers, pools within pools, the ends of workers.
HOW_THEY_START_MATTERS = {"test_construct", "test_functions", "test_inside", "test_workers"}


class Hang(BaseException):
    """A test that took longer than it may. No `except Exception` may swallow it."""


def _raise(number, frame):
    raise Hang("the test hangs")


def pytest_configure(config):
    # Not captured: what a hung test leaves behind must be seen.
    config.hang_output = os.dup(2)
    # Workers that are spawned import the main module, which here is pytest itself. That is
    # pytest's own affair and takes a while; programs with a real main module are run apart.
    main = sys.modules["__main__"]
    main.__spec__ = None
    if hasattr(main, "__file__"):
        del main.__file__


def _limit(item):
    marker = item.get_closest_marker("limit")
    return marker.args[0] if marker else LIMIT


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    # The last resort, for waits that no signal ends.
    faulthandler.dump_traceback_later(2 * _limit(item) + 30, exit=True, file=item.config.hang_output)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _phase(item):
    previous = signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, _limit(item))
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    return (yield from _phase(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    return (yield from _phase(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    return (yield from _phase(item))


def pytest_collection_finish():
    # Every test collects garbage. What is here by now stays, and to look through it takes longer than
    # most tests do.
    gc.collect()
    gc.freeze()


def _repeats(item):
    """Whether it asks of spawned workers what another asks of forked ones, far from how they start."""
    method = item.callspec.params.get("shared_pool") if hasattr(item, "callspec") else None
    return method not in (None, "fork") and item.module.__name__ not in HOW_THEY_START_MATTERS


def pytest_collection_modifyitems(items):
    if not FULL:
        for item in items:
            if item.get_closest_marker("slow") or _repeats(item):
                item.add_marker(pytest.mark.skip(reason="only with RINGPOOL_TEST_FULL=1"))
    if not support.OURS:
        for item in items:
            if item.get_closest_marker("ours"):
                item.add_marker(pytest.mark.skip(reason="not for multiprocessing.Pool"))


_shared = {}


@pytest.fixture(autouse=True)
def no_process_left():
    """A test ends with the processes that it began with (but for replaced workers of shared pools)."""
    before = support.children()
    yield
    gc.collect()

    def left():
        workers = {w.pid for pool in _shared.values() for w in list(pool._pool)}
        return support.children() - before - workers

    support.eventually(lambda: not left(), 10)
    assert not {pid: support.command_line(pid) for pid in left()}


@pytest.fixture(params=support.METHODS)
def method(request):
    return request.param


@pytest.fixture
def make_pool():
    """Makes pools, and ends those that the test has left open."""
    made = []

    def make(*args, **kwds):
        pool = support.make(*args, **kwds)
        made.append(pool)
        return pool

    yield make
    while made:
        pool = made.pop()
        pool.terminate()
        pool.join()


@pytest.fixture(scope="module", params=support.METHODS)
def shared_pool(request):
    """A pool of two workers for many tests that leave it as it was; started in each way."""
    pool = _shared[request.param] = support.make(2, method=request.param)
    yield pool
    del _shared[request.param]
    pool.terminate()
    pool.join()


@pytest.fixture(scope="module")
def fork_pool():
    """The same, forked only."""
    pool = _shared["alone"] = support.make(2)
    yield pool
    del _shared["alone"]
    pool.terminate()
    pool.join()
