"""What can go wrong with a pool, beside what tasks raise.

Time-outs are `multiprocessing.TimeoutError`, results that cannot be sent
`multiprocessing.pool.MaybeEncodingError`, as with `multiprocessing.Pool`.
"""

from __future__ import annotations

import signal as _signals
from typing import Any

__all__ = [
    "InitializerError",
    "PoolClosed",
    "PoolForked",
    "PoolFull",
    "PoolTerminated",
    "RingpoolError",
    "WorkerDied",
]


class RingpoolError(Exception):
    """The base of all errors of the pool itself."""


class WorkerDied(RingpoolError):
    """The process that ran a task ended before the task did.

    Only the item that it ran fails; the process is replaced. What a task with `retries` raises is
    about its last attempt.

    >>> import os
    >>> from ringpool import Pool, WorkerDied
    >>> with Pool(1) as pool:
    ...     try:
    ...         pool.apply(os._exit, (3,))
    ...     except WorkerDied as error:
    ...         print(error.exitcode, error.signal, error.function)
    3 None posix._exit
    """

    #: Its process id.
    pid: int | None
    #: Its number within the pool, from 1.
    worker: int | None
    #: As `Process.exitcode` has it: negative for a signal. None if that is not known.
    exitcode: int | None
    #: What it ran.
    function: str | None
    #: Which attempt it was, from 1.
    attempt: int | None

    def __init__(
        self,
        message: str = "a worker died",
        pid: int | None = None,
        exitcode: int | None = None,
        function: str | None = None,
        worker: int | None = None,
        attempt: int | None = None,
    ) -> None:
        super().__init__(message)
        self.pid = pid
        self.exitcode = exitcode
        self.function = function
        self.worker = worker
        self.attempt = attempt

    @property
    def signal(self) -> _signals.Signals | int | None:
        """The signal that ended it, if one did."""
        if self.exitcode is None or self.exitcode >= 0:
            return None
        try:
            return _signals.Signals(-self.exitcode)
        except ValueError:
            return -self.exitcode

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (self.pid, self.exitcode, self.function, self.worker, self.attempt)
        return type(self), (*self.args, *fields)


class InitializerError(RingpoolError):
    """The initializer of a worker failed; the text has its traceback. The pool takes no more work."""

    #: The worker's process id.
    pid: int | None

    def __init__(self, message: str = "the initializer failed", pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.pid)


class PoolClosed(RingpoolError, ValueError):
    """The pool takes no more work."""


class PoolTerminated(RingpoolError):
    """The pool was terminated before the task was done."""


class PoolForked(RingpoolError, RuntimeError):
    """The pool belongs to the process that this one was forked from."""


class PoolFull(RingpoolError, MemoryError):
    """There is no room for this in the pool's shared memory."""
