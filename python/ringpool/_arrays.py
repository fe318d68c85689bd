"""Arrays of numpy in shared memory."""

from __future__ import annotations

import math
import operator
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ringpool import _native, _worker
from ringpool.errors import PoolFull

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ringpool.pool import Pool

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["copied", "empty", "living", "make"]

#: The pools of this process, the newest last; those that were dropped or closed, too, for a while.
living: list[weakref.ref[Pool]] = []

# A forked child has no pools.
os.register_at_fork(after_in_child=living.clear)


def make(
    memory: Callable[[int], _native.Memory], shape: int | tuple[int, ...], dtype: npt.DTypeLike
) -> Array:
    """An array in fresh memory."""
    import numpy as np

    dtype = np.dtype(dtype)
    if dtype.hasobject:
        raise TypeError(f"arrays of {dtype} hold references, which mean nothing to other processes")
    extents = (shape,) if isinstance(shape, int) else tuple(operator.index(extent) for extent in shape)
    count = math.prod(extents)
    if count <= 0 or dtype.itemsize == 0:
        # Nothing to share; or negative, which numpy says.
        return np.empty(extents, dtype)
    nbytes = count * dtype.itemsize
    flat = np.frombuffer(memoryview(memory(nbytes)), np.uint8, nbytes)
    result: Array = flat.view(dtype).reshape(extents)
    return result


def copied(memory: Callable[[int], _native.Memory], array: npt.ArrayLike) -> Array:
    """A copy of an array, of the same order, in fresh memory."""
    import numpy as np

    array = np.asanyarray(array)
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        result = make(memory, array.shape[::-1], array.dtype).T
    else:
        result = make(memory, array.shape, array.dtype)
    result[...] = array
    return result


def _newest() -> Pool | None:
    """The pool that was started last, of those that run."""
    while living:
        pool = living[-1]()
        if pool is not None and pool._state == "RUN":
            return pool
        living.pop()
    return None


def empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike = float) -> Array:
    """An array like `numpy.empty`'s, in the shared memory of the pool that was started last.

    In a task, it is the memory of the worker: an array from there is returned without a copy. Where
    there is no pool, and where there is no more room in its memory, it is ordinary memory.

    >>> import ringpool
    >>> ringpool.empty((2, 3), "int32").shape
    (2, 3)
    """
    import numpy as np

    pool = _newest()
    memory: Callable[[int], _native.Memory]
    if pool is not None:
        memory = pool._engine.memory
    elif _worker.process == os.getpid():
        memory = _native.worker_memory
    else:
        return np.empty(shape, dtype)
    try:
        return make(memory, shape, dtype)
    except PoolFull:
        return np.empty(shape, dtype)
