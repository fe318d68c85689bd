"""A pool of processes like `multiprocessing.Pool`, over shared memory.

>>> from ringpool import Pool
>>> with Pool(2) as pool:
...     pool.map(len, ["a", "bc", "def"])
[1, 2, 3]

Whatever else `multiprocessing` has can be imported from here, too, as it is.
"""

from __future__ import annotations

from multiprocessing import (
    Array,
    AuthenticationError,
    Barrier,
    BoundedSemaphore,
    BufferTooShort,
    Condition,
    Event,
    JoinableQueue,
    Lock,
    Manager,
    Pipe,
    Process,
    ProcessError,
    Queue,
    RawArray,
    RawValue,
    RLock,
    Semaphore,
    SimpleQueue,
    TimeoutError,
    Value,
    active_children,
    allow_connection_pickling,
    cpu_count,
    current_process,
    freeze_support,
    get_all_start_methods,
    get_logger,
    get_start_method,
    log_to_stderr,
    parent_process,
    set_executable,
    set_forkserver_preload,
    set_start_method,
)
from typing import Any

from ringpool._arrays import empty
from ringpool._context import get_context
from ringpool.errors import (
    InitializerError,
    PoolClosed,
    PoolForked,
    PoolFull,
    PoolTerminated,
    RingpoolError,
    WorkerDied,
)
from ringpool.pool import Pool

__all__ = [
    "Array",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BufferTooShort",
    "Condition",
    "Event",
    "InitializerError",
    "JoinableQueue",
    "Lock",
    "Manager",
    "Pipe",
    "Pool",
    "PoolClosed",
    "PoolForked",
    "PoolFull",
    "PoolTerminated",
    "Process",
    "ProcessError",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "RingpoolError",
    "Semaphore",
    "SimpleQueue",
    "TimeoutError",
    "Value",
    "WorkerDied",
    "active_children",
    "allow_connection_pickling",
    "cpu_count",
    "current_process",
    "empty",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "log_to_stderr",
    "parent_process",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # Looked up when it is asked for: that takes longer than all else here.
        from importlib.metadata import version

        return version("ringpool")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
