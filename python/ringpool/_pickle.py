"""How objects become bytes: multiprocessing's reducers, pickle protocol 5, buffers beside the stream.

The native module calls these functions for whatever it does not encode by itself.
"""

from __future__ import annotations

import copyreg
import multiprocessing.connection
import multiprocessing.pool
import pickle
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ringpool import _source

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = [
    "MainModule",
    "describe_exception",
    "dump_arguments",
    "dump_chunks",
    "dump_function",
    "dumps",
    "encoding_error",
    "loads",
]

#: What a program that comes from standard input has for its file.
STDIN = "<stdin>"
#: A pickler that has written more than this is dropped: emptying its table of seen objects takes
#: time in proportion to the largest that it ever had.
_LARGE = 1 << 16

# Not all of what multiprocessing's own modules share is known to type checkers.
_connection: Any = multiprocessing.connection
_mp_pool: Any = multiprocessing.pool

# Both are changed in place by whoever registers something.
_reducers: dict[type, Any] = getattr(ForkingPickler, "_extra_reducers")  # noqa: B009
_of_copyreg = copyreg.dispatch_table


class _File:
    """What a pickler writes to; `write` is the `append` of a list."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Any], Any]) -> None:
        self.write = write


class _Encoder:
    """A pickler that is used again and again by one thread."""

    __slots__ = (
        "beside",
        "chunks",
        "clear_memo",
        "dump",
        "knows_numpy",
        "of_copyreg",
        "of_reducers",
        "table",
    )

    def __init__(self) -> None:
        self.chunks: list[Any] = []
        self.beside: list[pickle.PickleBuffer] = []
        # What is registered with multiprocessing and copyreg by now.
        self.of_copyreg = dict(_of_copyreg)
        self.of_reducers = dict(_reducers)
        pickler = pickle.Pickler(
            _File(self.chunks.append),
            5,
            buffer_callback=self.beside.append,
        )
        self.table = pickler.dispatch_table = _reducers_beside(self.of_copyreg, self.of_reducers)
        self.knows_numpy = False
        self.dump = pickler.dump
        self.clear_memo = pickler.clear_memo

    def learn_numpy(self) -> None:
        """What numpy is there for, from when it is there; but a reducer that somebody registered stays."""
        for kind, reduce in _reducers_of_numpy().items():
            self.knows_numpy = True
            self.table.setdefault(kind, reduce)


class _Encoders(threading.local):
    """The encoders of this thread that are not at work; one at work may come upon `dumps` again."""

    def __init__(self) -> None:
        self.free: list[_Encoder] = []


_encoders = _Encoders()


def _reducers_beside(*registered: Mapping[type, Any]) -> dict[type, Any]:
    """What has been registered, and our own reducers for what nobody has registered one for."""
    table: dict[type, Any] = {memoryview: _reduce_memoryview, **_reducers_of_numpy()}
    for reducers in registered:
        table.update(reducers)
    return table


def _reducers_of_numpy() -> dict[type, Any]:
    """Nothing while the program has not imported numpy, or is about to."""
    numpy = sys.modules.get("numpy")
    array = getattr(numpy, "ndarray", None)
    of_name = getattr(numpy, "dtype", None)
    if array is None or of_name is None:
        return {}
    for name in "?bhilqBHILQefdgFDG":
        _plain_types[name] = of_name(name)
    return {array: _reduce_array}


#: numpy's own types of one number, by their names: of each there is just one object.
_plain_types: dict[str, np.dtype[Any]] = {}


def _reduce_array(array: Any) -> Any:
    """In the place of numpy's own, for two reasons.

    An array that may not be written to here is writable where it arrives. Earlier protocols copy, so
    that all arrays arrive writable, and programs count on it. And most of what numpy's takes is for the
    array's type, of which a letter is enough.
    """
    flags = array.flags
    kind = array.dtype
    if not flags.forc or kind.hasobject or not kind.itemsize:
        return array.__reduce_ex__(5)
    try:
        # What lies in memory in another order than C's does so in Fortran's.
        data = pickle.PickleBuffer(array if flags.c_contiguous else array.T)
    except (BufferError, ValueError):
        # Of a type that buffers do not know; it is copied.
        return array.__reduce_ex__(5)
    name = kind.char
    return _rebuild_array, (
        data,
        name if _plain_types.get(name) is kind else kind,
        array.shape,
        "C" if flags.c_contiguous else "F",
    )


def _rebuild_array(
    data: Any, kind: str | np.dtype[Any], shape: tuple[int, ...], order: Literal["C", "F"]
) -> Array:
    """An array over this memory, if that may be written to."""
    import numpy as np

    view = memoryview(data)
    if view.readonly:
        # The pickler noted that the sender's was not to be written to, and so the unpickler gives a
        # view that is not. A buffer that lay beside the stream is the receiver's own all the same.
        beneath = memoryview(view.obj) if view.obj is not None else view
        view = memoryview(bytearray(view)) if beneath.readonly or beneath.nbytes != view.nbytes else beneath
    return np.ndarray(shape, kind, view, order=order)


def _reduce_memoryview(view: memoryview) -> tuple[Any, ...]:
    data = pickle.PickleBuffer(view) if view.c_contiguous else view.tobytes()
    return _rebuild_memoryview, (data, view.format, view.shape, view.readonly)


def _rebuild_memoryview(data: Any, format: Any, shape: tuple[int, ...], readonly: bool) -> memoryview:
    view: memoryview[Any] = memoryview(data)
    if view.nbytes == 0:
        # Zeros in a shape cannot be cast.
        view = memoryview(bytearray()).cast(format)
    elif len(shape) == 1:
        view = view.cast("B").cast(format)
    else:
        view = view.cast("B").cast(format, shape)
    return view.toreadonly() if readonly else view


def dump_chunks(obj: object, buffers: list[pickle.PickleBuffer]) -> list[Any]:
    """The stream of `obj` in parts that belong one after the other.

    Large bytes objects are parts as they are. What `obj` has of buffers (arrays of numpy, say) is
    appended to `buffers` instead.
    """
    if _connection._ForkingPickler is not ForkingPickler:
        # A reducer that the program has put in the place of multiprocessing's.
        return [bytes(_connection._ForkingPickler.dumps(obj, 5))]
    free = _encoders.free
    encoder = free.pop() if free else _Encoder()
    if encoder.of_reducers != _reducers or encoder.of_copyreg != _of_copyreg:
        encoder = _Encoder()
    if not encoder.knows_numpy and "numpy" in sys.modules:
        encoder.learn_numpy()
    chunks = encoder.chunks
    beside = encoder.beside
    try:
        encoder.dump(obj)
    finally:
        # At once, for it keeps alive whatever it has seen. After an exception it is not used again.
        encoder.clear_memo()
    if beside:
        buffers += beside
        beside.clear()
    if len(chunks) == 1 and len(chunks[0]) < _LARGE:
        whole = chunks.copy()
        chunks.clear()
        free.append(encoder)
        return whole
    return chunks


def dumps(obj: object, buffers: list[pickle.PickleBuffer]) -> bytes:
    """`dump_chunks` in one piece.

    >>> beside = []
    >>> loads(dumps([1, "two"], beside), beside)
    [1, 'two']
    >>> stream = dumps(memoryview(bytearray(100000)), beside)
    >>> len(stream) < 200, len(beside)
    (True, 1)
    >>> loads(stream, beside).nbytes
    100000
    """
    chunks = dump_chunks(obj, buffers)
    chunk = chunks[0]
    if len(chunks) == 1 and type(chunk) is bytes:
        return chunk
    return b"".join(chunks)


def loads(data: Any, buffers: Iterable[Any] = ()) -> Any:
    """The object of a stream, from any bytes-like object, and of the buffers that lay beside it."""
    if _connection._ForkingPickler is not ForkingPickler:
        return _connection._ForkingPickler.loads(data)
    return pickle.loads(data, buffers=buffers)


class _NotFoundThere(Exception):
    """A function or class of `__main__` that a worker would not find."""


class MainModule:
    """What the workers of a pool find in `__main__`.

    Forked workers have what was there when the pool started. Spawned ones run the program's file
    again and find all that it defines for them too, if there is a file.
    """

    def __init__(self, start_method: str) -> None:
        main = sys.modules.get("__main__")
        self._known: dict[str, Callable[[], object]] = {}
        self._runs_again = start_method != "fork" and _has_source(main)
        #: What the file defines when a worker runs it; None: not looked for yet, or nobody can tell.
        self._defined: frozenset[str] | None = None
        self._looked = False
        if start_method == "fork":
            for name, value in list(vars(main).items()) if main is not None else ():
                if isinstance(value, (types.FunctionType, type)):
                    self._known[name] = weakref.ref(value)

    def finds(self, value: types.FunctionType | type) -> bool:
        """Whether a worker finds just this function or class by its name."""
        if value.__module__ != "__main__":
            return True
        name = value.__qualname__.partition(".")[0]
        main = sys.modules.get("__main__")
        if self._runs_again:
            if not self._looked:
                self._defined = _source.defined_in_workers(getattr(main, "__file__", None))
                self._looked = True
            return self._defined is None or name in self._defined
        known = self._known.get(name)
        # Whether the name leads to this value here and now is what pickle itself finds out.
        return known is not None and known() is getattr(main, name, None)


def _has_source(main: types.ModuleType | None) -> bool:
    """Whether multiprocessing has new interpreters run what `__main__` was made from."""
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        # The `__main__.py` of packages, directories and archives have no guards, and are left out.
        return bool(name.rpartition(".")[2] != "__main__")
    file = getattr(main, "__file__", None)
    # As is, by its name, the program that starts IPython.
    return file is not None and file != STDIN and Path(file).stem != "ipython"


class _ByReference(ForkingPickler):
    """A pickler that gives up at what a worker would not find in `__main__`."""

    def __init__(self, file: Any, main: MainModule) -> None:
        super().__init__(file, 5)
        self.dispatch_table = _reducers_beside(self.dispatch_table)
        self._main = main

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, (types.FunctionType, type)) and not self._main.finds(value):
            raise _NotFoundThere
        return NotImplemented


def _by_value(value: object, buffers: list[pickle.PickleBuffer] | None = None) -> bytes | None:
    """The stream that cloudpickle makes; None if it is not installed."""
    try:
        from cloudpickle import CloudPickler  # type: ignore[import-untyped]
    except ImportError:
        return None
    written: list[Any] = []
    callback = None if buffers is None else buffers.append
    pickler = CloudPickler(_File(written.append), 5, buffer_callback=callback)
    pickler.dispatch_table = _reducers_beside(pickler.dispatch_table, _reducers)
    pickler.dump(value)
    return b"".join(written)


#: How pickle says that it cannot. Anything else comes from the objects, or from a signal handler.
_REFUSED = (pickle.PicklingError, AttributeError, TypeError)


def dump_function(func: object, main: MainModule | None = None) -> tuple[bytes, bool]:
    """The stream of a function, and whether it has the function's code: then any worker can run it.

    By reference, if that can be done and the workers, who have `main`, would find it; else by
    cloudpickle, if that is installed; else the error of pickle is raised.

    >>> import math
    >>> stream, by_value = dump_function(math.sqrt)
    >>> loads(stream)(9.0), by_value
    (3.0, False)
    """
    written: list[Any] = []
    try:
        if _connection._ForkingPickler is not ForkingPickler:
            return bytes(_connection._ForkingPickler.dumps(func)), False
        if main is None:
            ForkingPickler(_File(written.append), 5).dump(func)
        else:
            _ByReference(_File(written.append), main).dump(func)
        return b"".join(written), False
    except _NotFoundThere:
        data = _by_value(func)
        if data is not None:
            return data, True
        # As multiprocessing does; the worker says that it is not there.
        return bytes(ForkingPickler.dumps(func, 5)), False
    except _REFUSED as error:
        try:
            data = _by_value(func)
        except _REFUSED:
            data = None
        if data is None:
            raise error
        return data, True


def dump_arguments(arguments: object, buffers: list[pickle.PickleBuffer]) -> bytes:
    """`dumps`; what pickle refuses (a lambda, say) is left to cloudpickle, if that is installed."""
    try:
        return dumps(arguments, buffers)
    except _REFUSED as error:
        beside: list[pickle.PickleBuffer] = []
        try:
            data = _by_value(arguments, beside)
        except _REFUSED:
            data = None
        if data is None:
            raise error
        buffers += beside
        return data


def describe_exception(exc: BaseException, tb: types.TracebackType | None) -> object:
    """What is sent for an exception: it unpickles as the exception, whose cause is a `RemoteTraceback`."""
    described: object = _mp_pool.ExceptionWithTraceback(exc, tb)
    return described


def encoding_error(exc: BaseException, value: object) -> Exception:
    """What is sent in the place of a result that cannot be pickled."""
    try:
        error: Exception = _mp_pool.MaybeEncodingError(exc, value)
    except Exception:
        # Its repr fails, too.
        error = _mp_pool.MaybeEncodingError(exc, object.__repr__(value))
    return error
