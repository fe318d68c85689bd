"""Contexts of multiprocessing whose `Pool` is ours."""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Callable, Iterable
from multiprocessing.context import BaseContext
from types import MethodType
from typing import Any

from ringpool.pool import Pool

__all__ = ["get_context"]


def _pool(
    context: BaseContext,
    processes: int | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: Iterable[Any] = (),
    maxtasksperchild: int | None = None,
    *,
    retries: int = 0,
) -> Pool:
    return Pool(processes, initializer, initargs, maxtasksperchild, context.get_context(), retries=retries)


def get_context(method: str | None = None) -> Any:
    """What `multiprocessing.get_context` returns, but its `Pool` makes a `ringpool.Pool`.

    >>> with get_context("fork").Pool(1) as pool:
    ...     pool.apply(abs, (-2,))
    2
    """
    context = copy.copy(multiprocessing.get_context(method))
    context.Pool = MethodType(_pool, context)  # type: ignore[method-assign]
    return context
