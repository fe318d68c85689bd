"""The engine, as Python sees it. Private: the public face is `ringpool` and `ringpool.pool`."""

from collections.abc import Callable, Iterable, Mapping
from types import GenericAlias
from typing import Any, Generic, Protocol, TypeVar, final

from ringpool._pickle import MainModule

__all__ = [
    "ApplyResult",
    "Engine",
    "IMapIterator",
    "MapResult",
    "Memory",
    "View",
    "serve",
    "worker_memory",
]

_T = TypeVar("_T")

class _Launcher(Protocol):
    def start(self, worker: int, fd: int) -> int: ...
    def exit(self, worker: int, pid: int) -> int | None: ...

@final
class Engine:
    """A pool of processes that a launcher starts."""

    def __new__(
        cls,
        processes: int,
        launcher: _Launcher,
        *,
        maxtasksperchild: int | None = None,
        retries: int = 0,
        main: MainModule | None = None,
    ) -> Engine: ...
    def apply(
        self,
        function: Callable[..., Any],
        args: Iterable[Any],
        kwds: Mapping[str, Any] | None = None,
        retries: int | None = None,
    ) -> Any: ...
    def submit(
        self,
        owner: object,
        function: Callable[..., Any],
        args: Iterable[Any],
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        retries: int | None = None,
    ) -> ApplyResult[Any]: ...
    def map(
        self,
        owner: object,
        function: Callable[..., Any],
        iterable: Iterable[Any],
        star: bool,
        chunksize: int | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        retries: int | None = None,
    ) -> MapResult[Any]: ...
    def imap(
        self,
        owner: object,
        function: Callable[..., Any],
        iterable: Iterable[Any],
        star: bool,
        chunksize: int,
        ordered: bool,
        buffersize: int | None = None,
        retries: int | None = None,
    ) -> IMapIterator[Any]: ...
    def close(self) -> None:
        """In a forked child, an error, as all else of a pool is there."""

    def terminate(self) -> None: ...
    def join(self) -> None:
        """Waits for the workers' end; not if the thread is one of the engine's own."""

    def pending(self) -> int:
        """How many calls, maps and iterations are not done."""

    def memory(self, nbytes: int) -> Memory: ...
    def check(self) -> None: ...

class ApplyResult(Generic[_T]):
    """A result to come."""

    def get(self, timeout: float | None = None) -> _T: ...
    def wait(self, timeout: float | None = None) -> None: ...
    def ready(self) -> bool: ...
    def successful(self) -> bool: ...
    @classmethod
    def __class_getitem__(cls, item: Any) -> GenericAlias: ...

class MapResult(ApplyResult[list[_T]]):
    """The results of a map to come."""

class IMapIterator(Generic[_T]):
    """Results, one after the other."""

    def __iter__(self) -> IMapIterator[_T]: ...
    def __next__(self) -> _T: ...
    def next(self, timeout: float | None = None) -> _T: ...
    def close(self) -> None: ...

@final
class Memory:
    """Writable memory of a pool, which is kept until the last view of it dies."""

    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...

@final
class View:
    """Memory that another process wrote, mapped privately: writable, and nobody else sees what is written."""

    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...

def serve(fd: int, initialize: Callable[[], None]) -> None: ...
def worker_memory(nbytes: int) -> Memory: ...
