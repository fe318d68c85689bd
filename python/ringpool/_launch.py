"""How worker processes are started: as multiprocessing's own pool starts them."""

from __future__ import annotations

import io
import multiprocessing.process
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker, util
from multiprocessing.process import BaseProcess
from typing import Any

from ringpool import _pickle, _worker

__all__ = ["Launcher"]

#: How long the exit code of a process that has ended may take to come from who reaps it.
_REAPED_WITHIN = 1.0
#: How long a process may take to end that is told to.
_ENDED_WITHIN = 5.0

#: Held while something of this process is changed for as long as another is started.
_changing = threading.RLock()


#: The thread that is forking a worker.
_forking: int | None = None
#: What the parent of a worker prints to. It is never flushed here.
_of_the_parent: list[Any] = []


def _in_child() -> None:
    """A fork may come while the lock is held; by just the thread that goes on in the child."""
    global _changing, _forking
    _changing = threading.RLock()
    forking, _forking = _forking, None
    if forking == threading.get_ident():
        _leave_output()


def _leave_output() -> None:
    """What another thread printed right before the fork is the parent's to write, not the worker's."""
    before = sys.stdout
    if type(before) is not io.TextIOWrapper or type(before.buffer) is not io.BufferedWriter:
        return
    try:
        output = io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(before.fileno(), "w", closefd=False)),
            encoding=before.encoding,
            errors=before.errors,
            line_buffering=before.line_buffering,
            write_through=before.write_through,
        )
    except (OSError, ValueError):
        # It is closed.
        return
    _of_the_parent.append(before)
    sys.stdout = output
    if sys.__stdout__ is before:
        sys.__stdout__ = output  # type: ignore[misc]


os.register_at_fork(after_in_child=_in_child)


@contextmanager
def _children_allowed() -> Iterator[None]:
    """Lets a daemonic process have children: ours end with it, for they notice its end."""
    config: dict[str, Any] = getattr(multiprocessing.process.current_process(), "_config", {})
    if not config.get("daemon"):
        yield
        return
    with _changing:
        daemonic = config.pop("daemon", None)
        try:
            yield
        finally:
            if daemonic is not None:
                config["daemon"] = daemonic


@contextmanager
def _no_file_for_stdin() -> Iterator[None]:
    """Keeps new interpreters from running `<stdin>` again: there is no such file, and they would fail."""
    main: Any = sys.modules.get("__main__")
    if getattr(main, "__file__", None) != _pickle.STDIN:
        yield
        return
    with _changing:
        file = vars(main).pop("__file__", None)
        try:
            yield
        finally:
            if file is not None:
                main.__file__ = file


@contextmanager
def _forks_workers(needed: bool) -> Iterator[None]:
    """Tells children that this thread forks from others."""
    global _forking
    if not needed:
        yield
        return
    before, _forking = _forking, threading.get_ident()
    try:
        yield
    finally:
        _forking = before


@contextmanager
def _uninterrupted(needed: bool) -> Iterator[bool]:
    """Keeps Ctrl-C from a process that does not ignore it yet: it inherits what this thread blocks.

    Yields whether the process has to unblock it.
    """
    if not needed:
        yield False
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield signal.SIGINT not in before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _method_of(context: Any) -> str:
    """fork, spawn or forkserver; "" for contexts of another kind."""
    try:
        method = context.get_start_method()
    except (AttributeError, ValueError):
        return ""
    return method if isinstance(method, str) else ""


class Launcher:
    """Starts the workers of one pool and keeps its list of them. Does not refer to the pool."""

    #: What workers find in `__main__`.
    main: _pickle.MainModule

    def __init__(
        self,
        context: Any,
        process: Callable[..., Any],
        workers: list[Any],
        initializer: Callable[..., object] | None,
        initargs: Iterable[Any],
    ) -> None:
        self._context = context
        self._process = process
        self._workers = workers
        self._method = _method_of(context)
        self.main = _pickle.MainModule(self._method)
        self._initializer = None if initializer is None else _worker.Portable(initializer, self.main)
        self._initargs = initargs
        self._lock = threading.Lock()
        # By number; those in here are in `_workers`.
        self._serving: dict[int, Any] = {}

    def _make(self, arguments: tuple[Any, ...]) -> Any:
        process: Any = self._process
        if isinstance(process, type) and issubclass(process, BaseProcess):
            # A class in the place of the static method.
            return process(target=_worker.main, args=arguments)
        return process(self._context, target=_worker.main, args=arguments)

    def start(self, worker: int, fd: int) -> int:
        """Starts the process that is to be this worker, from now on in the pool's list; its id."""
        if self._method == "spawn":
            # It would not leave the mask as it is.
            resource_tracker.ensure_running()
        # Not for forkserver, whose server would pass it on to the processes of others.
        with _uninterrupted(self._method in ("fork", "spawn")) as unblock:
            seat = _worker.Seat(fd)
            process = self._make((seat, self._initializer, self._initargs, unblock))
            process.name = process.name.replace("Process", "PoolWorker")
            process.daemon = True
            forks = _forks_workers(self._method == "fork")
            with _children_allowed(), _no_file_for_stdin(), forks:
                process.start()
        with self._lock:
            before = self._serving.get(worker)
            self._serving[worker] = process
            if before in self._workers:
                # At no time is the list shorter.
                self._workers[self._workers.index(before)] = process
            else:
                self._workers.append(process)
        util.debug("added worker")
        pid = getattr(process, "pid", None)
        if not isinstance(pid, int):
            raise TypeError(f"{process!r} has no process id: the workers of a pool are processes")
        return pid

    def exit(self, worker: int, pid: int) -> int | None:
        """Reaps a worker that has ended; its exit code, negative for a signal; None if nobody knows."""
        with self._lock:
            process = self._serving.get(worker)
        if process is None or process.pid != pid:
            return None
        process.join()
        # Another thread may be about to reap it, too; only one of them is told by the system.
        until = time.monotonic() + _REAPED_WITHIN
        code: int | None = process.exitcode
        while code is None and time.monotonic() < until:
            time.sleep(0.001)
            code = process.exitcode
        return code

    def abandon(self) -> None:
        """Ends whatever was started."""
        with self._lock:
            workers = list(self._workers)
        # Others than processes cannot be ended.
        workers = [process for process in workers if isinstance(process, BaseProcess)]
        for process in workers:
            if process.exitcode is None:
                process.terminate()
        for process in workers:
            process.join(_ENDED_WITHIN)
            if process.exitcode is None:
                process.kill()
                process.join()
