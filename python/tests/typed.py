"""What type checkers see of the public face: checked by mypy --strict, not run."""

from collections.abc import Iterator
from typing import assert_type

import numpy as np

import ringpool
from ringpool import Pool, TimeoutError, WorkerDied
from ringpool.pool import AsyncResult, IMapIterator, MapResult, ThreadPool


def half(number: int) -> float:
    return number / 2


def join(left: str, right: str) -> str:
    return left + right


def numbers() -> Iterator[int]:
    yield 1


def use(pool: Pool, threads: ThreadPool) -> None:
    assert_type(pool.apply(half, (3,)), float)
    assert_type(pool.apply(half, (3,), retries=2), float)
    assert_type(pool.apply_async(half, (3,)), AsyncResult[float])
    assert_type(pool.apply_async(half, (3,)).get(timeout=1.5), float)
    assert_type(pool.map(half, [1, 2], 1), list[float])
    assert_type(pool.map(half, numbers(), retries=1), list[float])
    assert_type(pool.starmap(join, [("a", "b")]), list[str])
    assert_type(pool.map_async(half, [1], callback=print), MapResult[float])
    assert_type(pool.starmap_async(join, [("a", "b")]).get(), list[str])
    assert_type(pool.imap(half, numbers(), 2, buffersize=4), IMapIterator[float])
    assert_type(pool.imap_unordered(half, numbers()).next(timeout=1), float)
    for result in pool.imap(half, numbers()):
        assert_type(result, float)
    pool.empty((2, 3), np.float32)[0, 0] = 1
    pool.share([1, 2]).sum()
    ringpool.empty(4).sum()
    with ringpool.get_context("spawn").Pool(2) as other:
        other.map(half, [1])
    try:
        pool.apply_async(half, (1,)).get(1)
    except (TimeoutError, WorkerDied) as error:
        print(error)
    with Pool(2, print, ("hello",), None, None, retries=1) as inner:
        assert_type(inner, Pool)
    threads.map(half, [1])
