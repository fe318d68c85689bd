"""What a worker process runs."""

from __future__ import annotations

import os
import signal
import types
from collections.abc import Callable, Iterable
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from typing import Any

from ringpool import _native, _pickle

__all__ = ["Portable", "Seat", "main", "process"]

#: The process that is a worker, if this one is; a process that it forks is none.
process: int | None = None


class Seat:
    """A descriptor that goes to the process that is being started."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def detach(self) -> int:
        """The descriptor, in the process that got it."""
        return self._fd

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None:
            raise RuntimeError("a worker's place goes to the process that is being started, and nowhere else")
        return _arrived, (reduction.DupFd(self._fd),)


def _arrived(handle: Any) -> Seat:
    return Seat(handle.detach())


class Portable:
    """A function that is pickled like those of tasks: by value, if a worker would not find it."""

    def __init__(self, function: Callable[..., object], main: _pickle.MainModule | None) -> None:
        self.function = function
        self._main = main

    def __reduce__(self) -> tuple[Any, ...]:
        # Anything else may refer to locks and queues, whose pickles have to be part of the process's.
        if isinstance(self.function, types.FunctionType):
            data, by_value = _pickle.dump_function(self.function, self._main)
            if by_value:
                return _unpacked, (data,)
        return Portable, (self.function, None)


def _unpacked(data: bytes) -> Portable:
    return Portable(_pickle.loads(data), None)


def _interrupted(number: int, frame: types.FrameType | None) -> None:
    """Ctrl-C is for the pool's process, which sees to its workers.

    A function, for what is ignored would be ignored by the programs that a task runs, too.
    """


def main(
    seat: Seat,
    initializer: Portable | None,
    initargs: Iterable[Any],
    unblock: bool,
) -> None:
    """Serves the pool at the other end of `seat`, until that is done with this process."""
    global process
    signal.signal(signal.SIGINT, _interrupted)
    if unblock:
        # See `_launch.uninterrupted`.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    process = os.getpid()

    def initialize() -> None:
        if initializer is not None:
            initializer.function(*initargs)

    _native.serve(seat.detach(), initialize)
