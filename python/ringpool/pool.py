"""`multiprocessing.pool` over shared memory: the same names, the same behaviour.

>>> from ringpool.pool import Pool, ThreadPool
"""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.pool
import operator
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing import TimeoutError, util
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any, TypeVar

from ringpool import _arrays
from ringpool._launch import Launcher
from ringpool._native import ApplyResult, Engine, IMapIterator, MapResult

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "CLOSE",
    "INIT",
    "RUN",
    "TERMINATE",
    "ApplyResult",
    "AsyncResult",
    "ExceptionWithTraceback",
    "IMapIterator",
    "IMapUnorderedIterator",
    "MapResult",
    "MaybeEncodingError",
    "Pool",
    "RemoteTraceback",
    "ThreadPool",
    "TimeoutError",
]

# Not all of multiprocessing's own names are known to type checkers.
_stdlib: Any = multiprocessing.pool

INIT: str = _stdlib.INIT
RUN: str = _stdlib.RUN
CLOSE: str = _stdlib.CLOSE
TERMINATE: str = _stdlib.TERMINATE

ExceptionWithTraceback = _stdlib.ExceptionWithTraceback
MaybeEncodingError = _stdlib.MaybeEncodingError
RemoteTraceback = _stdlib.RemoteTraceback

AsyncResult = ApplyResult
IMapUnorderedIterator = IMapIterator

#: So often a task may be tried again.
_MOST_RETRIES = 14

#: Iterables whose iteration cannot fail.
_NEVER_RAISE = (list, tuple, range, str, bytes)

_S = TypeVar("_S")
_T = TypeVar("_T")


class _Outstanding(Mapping[int, object]):
    """What `Pool._cache` has in multiprocessing: the jobs that are not done. There is only their number."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __len__(self) -> int:
        return self._engine.pending()

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __getitem__(self, job: int) -> object:
        raise KeyError(job)


def _end(engine: Engine) -> None:
    """Ends a pool that was terminated, or that nobody refers to any more, or with the interpreter."""
    util.debug("finalizing pool")
    engine.terminate()
    engine.join()


def _chunksize(chunksize: Any) -> int:
    if chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize!r}")
    return operator.index(chunksize)


def _whole_chunks(iterable: Iterable[_S], chunksize: int) -> Iterator[_S]:
    """The items, no chunk of which begins before it is whole: an iterable that raises within one loses it."""
    iterator = iter(iterable)
    while chunk := tuple(itertools.islice(iterator, chunksize)):
        yield from chunk


def _buffersize(buffersize: Any) -> int | None:
    if buffersize is None:
        return None
    if not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize < 1:
        raise ValueError("buffersize must be None or > 0")
    return buffersize


def _retries(retries: Any) -> int:
    if not isinstance(retries, int):
        raise TypeError(f"retries must be an integer, not {retries!r}")
    if not 0 <= retries <= _MOST_RETRIES:
        raise ValueError(f"retries must be from 0 to {_MOST_RETRIES}, not {retries!r}")
    return retries


class Pool(multiprocessing.pool.Pool):
    """A pool of worker processes that take tasks from shared memory.

    Used as `multiprocessing.Pool` is, which says what `processes`, `initializer`, `initargs`,
    `maxtasksperchild` and `context` mean. A task whose worker is killed fails with `WorkerDied`;
    with `retries`, it is run again up to so many times before that.

    >>> with Pool(2) as pool:
    ...     pool.map(abs, [-1, 2, -3])
    [1, 2, 3]
    """

    _pool: list[Any]
    _processes: int
    _state: str
    _ctx: Any
    _engine: Engine
    _terminate: Callable[[], object]

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any | None = None,
        *,
        retries: int = 0,
    ) -> None:
        # First, for __del__ and __repr__ may come upon a pool that could not be made. The rest is
        # in the order in which multiprocessing looks at its arguments.
        self._pool = []
        self._state = INIT
        self._ctx = context or multiprocessing.get_context()
        self._maxtasksperchild = maxtasksperchild
        self._initializer = initializer
        self._initargs = initargs

        if processes is None:
            # Those that this process may use, where Python can tell.
            processes = getattr(os, "process_cpu_count", os.cpu_count)() or 1
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._retries = _retries(retries)
        self._processes = operator.index(processes)

        launcher = Launcher(self._ctx, self.Process, self._pool, initializer, initargs)
        try:
            self._engine = Engine(
                self._processes,
                launcher,
                maxtasksperchild=maxtasksperchild,
                retries=self._retries,
                main=launcher.main,
            )
        except BaseException:
            launcher.abandon()
            raise
        self._cache = _Outstanding(self._engine)
        # Does not refer to the pool: it ends when nobody does.
        self._terminate = util.Finalize(self, _end, args=(self._engine,), exitpriority=15)
        self._state = RUN
        _arrays.living.append(weakref.ref(self))

    def __del__(self, _warn: Any = warnings.warn, RUN: str = RUN) -> None:
        if self._state == RUN:
            _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")

    def _repopulate_pool(self) -> None:
        """Workers that ended are replaced by the engine, at once and unasked."""

    def apply(
        self,
        func: Callable[..., _T],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        *,
        retries: int | None = None,
    ) -> _T:
        """Calls `func(*args, **kwds)` in a worker and returns what it returns.

        >>> with Pool(1) as pool:
        ...     pool.apply(int, ("ff",), {"base": 16})
        255
        """
        if self._state != RUN:
            raise ValueError("Pool not running")
        if retries is not None:
            _retries(retries)
        result: _T = self._engine.apply(func, args, kwds, retries)
        return result

    def apply_async(  # type: ignore[override]
        self,
        func: Callable[..., _T],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[_T], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        retries: int | None = None,
    ) -> ApplyResult[_T]:
        """`apply` that does not wait: returns the result to come.

        Never blocks: what does not fit into shared memory waits in this process. The callbacks run
        one at a time in a thread of the pool, before the result is ready.

        >>> with Pool(2) as pool:
        ...     results = [pool.apply_async(pow, (2, n)) for n in range(4)]
        ...     [result.get(timeout=60) for result in results]
        [1, 2, 4, 8]
        """
        if self._state != RUN:
            raise ValueError("Pool not running")
        if retries is not None:
            _retries(retries)
        return self._engine.submit(self, func, args, kwds, callback, error_callback, retries)

    def map(
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        chunksize: int | None = None,
        *,
        retries: int | None = None,
    ) -> list[_T]:
        """Calls `func` with each item and returns the list of what it returns.

        Waits for all items; then the first failure, if any, is raised. `retries` are for each item.

        >>> with Pool(2) as pool:
        ...     pool.map(str, range(3))
        ['0', '1', '2']
        """
        return self._mapped(func, iterable, False, chunksize, None, None, retries).get()

    def starmap(
        self,
        func: Callable[..., _T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        retries: int | None = None,
    ) -> list[_T]:
        """`map` of items that hold the arguments: `func(*item)`.

        >>> with Pool(2) as pool:
        ...     pool.starmap(pow, [(2, 3), (3, 2)])
        [8, 9]
        """
        return self._mapped(func, iterable, True, chunksize, None, None, retries).get()

    def map_async(  # type: ignore[override]
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        chunksize: int | None = None,
        callback: Callable[[list[_T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        retries: int | None = None,
    ) -> MapResult[_T]:
        """`map` that does not wait. A callback gets the whole list; it is not called for an empty one.

        >>> with Pool(2) as pool:
        ...     pool.map_async(abs, [-1, -2], callback=print).wait()
        [1, 2]
        """
        return self._mapped(func, iterable, False, chunksize, callback, error_callback, retries)

    def starmap_async(  # type: ignore[override]
        self,
        func: Callable[..., _T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[_T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        retries: int | None = None,
    ) -> MapResult[_T]:
        """`starmap` that does not wait.

        >>> with Pool(2) as pool:
        ...     pool.starmap_async(divmod, [(7, 2), (8, 3)]).get()
        [(3, 1), (2, 2)]
        """
        return self._mapped(func, iterable, True, chunksize, callback, error_callback, retries)

    def _mapped(
        self,
        func: Callable[..., _T],
        iterable: Iterable[Any],
        star: bool,
        chunksize: int | None,
        callback: Callable[[list[_T]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
        retries: int | None,
    ) -> MapResult[_T]:
        self._check_running()
        if not hasattr(iterable, "__len__"):
            # Here, so that what it raises is raised here.
            iterable = list(iterable)
        if chunksize is None:
            # Four chunks for each worker.
            chunksize, extra = divmod(len(iterable), self._processes * 4)  # type: ignore[arg-type]
            if extra or not chunksize:
                chunksize += 1
        else:
            chunksize = _chunksize(chunksize)
        if retries is not None:
            _retries(retries)
        return self._engine.map(self, func, iterable, star, chunksize, callback, error_callback, retries)

    def imap(  # type: ignore[override]
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        chunksize: int = 1,
        *,
        buffersize: int | None = None,
        retries: int | None = None,
    ) -> IMapIterator[_T]:
        """Iterates over what `func` returns for each item, in the order of the items.

        Items are taken as results are: at most `buffersize` are under way or wait to be asked for,
        by default as many as keep the workers busy. So `iterable` may be endless.

        >>> import itertools
        >>> with Pool(2) as pool:
        ...     list(itertools.islice(pool.imap(abs, itertools.count(-3)), 5))
        [3, 2, 1, 0, 1]
        """
        return self._iterated(func, iterable, chunksize, True, buffersize, retries)

    def imap_unordered(  # type: ignore[override]
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        chunksize: int = 1,
        *,
        buffersize: int | None = None,
        retries: int | None = None,
    ) -> IMapIterator[_T]:
        """`imap` in the order in which results come.

        >>> with Pool(2) as pool:
        ...     sorted(pool.imap_unordered(abs, [-3, 2, -1]))
        [1, 2, 3]
        """
        return self._iterated(func, iterable, chunksize, False, buffersize, retries)

    def _iterated(
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        chunksize: int,
        ordered: bool,
        buffersize: int | None,
        retries: int | None,
    ) -> IMapIterator[_T]:
        self._check_running()
        chunksize = _chunksize(chunksize)
        buffersize = _buffersize(buffersize)
        if retries is not None:
            _retries(retries)
        if chunksize > 1 and type(iterable) not in _NEVER_RAISE:
            iterable = _whole_chunks(iterable, chunksize)
        return self._engine.imap(self, func, iterable, False, chunksize, ordered, buffersize, retries)

    def empty(
        self, shape: int | tuple[int, ...], dtype: npt.DTypeLike = float
    ) -> np.ndarray[Any, np.dtype[Any]]:
        """An array of numpy in the pool's shared memory, its contents undefined.

        As an argument or an item it is not copied: workers read it where it is. They see it as it
        was when the task ran; what they write into it is theirs alone. Raises `PoolFull` if there
        is no room.

        >>> import numpy as np
        >>> with Pool(1) as pool:
        ...     numbers = pool.empty(1_000_000)
        ...     numbers[:] = 0.5
        ...     float(pool.apply(np.sum, (numbers,)))
        500000.0
        """
        self._engine.check()
        return _arrays.make(self._engine.memory, shape, dtype)

    def share(self, array: npt.ArrayLike) -> np.ndarray[Any, np.dtype[Any]]:
        """A copy of an array in the pool's shared memory: see `empty`.

        >>> import numpy as np
        >>> with Pool(2) as pool:
        ...     table = pool.share([[1, 2], [3, 4]])
        ...     [int(n) for n in pool.map(table.item, range(4))]
        [1, 2, 3, 4]
        """
        self._engine.check()
        return _arrays.copied(self._engine.memory, array)

    def close(self) -> None:
        """Takes no more work. What was submitted is done, and then the workers end."""
        util.debug("closing pool")
        if self._state == RUN:
            self._engine.close()
            self._state = CLOSE

    def terminate(self) -> None:
        """Ends the workers at once. What was not done fails with `PoolTerminated`."""
        util.debug("terminating pool")
        self._state = TERMINATE
        self._terminate()

    def join(self) -> None:
        """Waits until the workers have ended. Only after `close` or `terminate`."""
        util.debug("joining pool")
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        self._engine.join()
        for process in list(self._pool):
            process.join()
