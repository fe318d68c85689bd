"""What workers run in the tests. Importable, so that workers that are spawned find it."""

import faulthandler
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time

kept = []  # what a worker keeps between its tasks
given = None  # what an initializer was given


def nothing():
    return None


def nothing_of(_):
    return None


class Value:
    pass


def make_value():
    return Value()


def identity(value):
    return value


def square(value):
    return value * value


def add(left, right):
    return left + right


def collect(*args, **kwds):
    return args, kwds


def describe(value):
    return f"{type(value).__name__}:{value!r}"


def nap(seconds):
    time.sleep(seconds)


def nap_and(seconds, value):
    time.sleep(seconds)
    return value


def nap_and_first(pair):
    time.sleep(pair[0])
    return pair[1]


def pid(_=None):
    return os.getpid()


def pid_after(seconds):
    time.sleep(seconds)
    return os.getpid()


def meet(folder, count):
    """Waits until so many processes are at this at once, or for 20 s; the id of this one."""
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + 20
    while len(os.listdir(folder)) < count and time.monotonic() < end:
        time.sleep(0.005)
    return os.getpid()


def fail(message="wrong"):
    raise ValueError(message)


def fail_at(number, value):
    if value == number:
        raise ValueError(value)
    return value


def fail_at_three(value):
    return fail_at(3, value)


def fail_with_cause():
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("second") from error


def deep(levels):
    return deep(levels - 1) if levels else fail("in the deep")


# Ends


def killed(number):
    faulthandler.disable()  # which has nothing to tell here
    os.kill(os.getpid(), number)
    time.sleep(60)


def killed_at(wanted, number, value):
    if value == wanted:
        killed(number)
    return value * value


def killed_at_five(value):
    return killed_at(5, signal.SIGKILL, value)


def killed_at_twenty(value):
    return killed_at(20, signal.SIGKILL, value)


def segfault_at_five(value):
    if value == 5:
        segfault()
    return value * value


def segfault():
    import ctypes

    faulthandler.disable()
    ctypes.string_at(0)


def leave(code):
    os._exit(code)


def leave_at_five(value):
    if value == 5:
        os._exit(7)
    return value * value


def abort():
    faulthandler.disable()
    os.abort()


def sys_exit(code=None):
    sys.exit(code)


def sys_exit_at_five(value):
    if value == 5:
        sys.exit(3)
    return value * value


def interrupt(*args):
    raise KeyboardInterrupt(*args)


class Odd(BaseException):
    pass


def odd_exit(text):
    raise Odd(text)


# Attempts: a file counts them, so that they are counted across workers


def attempt(path):
    """Notes an attempt, and says which it is."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    with open(path) as file:
        return len(file.readlines())


def die_first(path, times, value):
    if attempt(path) <= times:
        killed(signal.SIGKILL)
    return value


def die_first_star(path, times, value):
    return die_first(f"{path}-{value}", times, value)


def raise_first(path, times, value):
    if attempt(path) <= times:
        raise ValueError("not yet")
    return value


# Pickling


class NotPickled(Exception):
    def __reduce__(self):
        raise pickle.PicklingError("never")


class Hidden:
    """Does not pickle, but has a repr."""

    def __reduce__(self):
        raise TypeError("hidden for good")

    def __repr__(self):
        return "<Hidden>"


def hidden():
    return Hidden()


def hidden_at_three(value):
    return Hidden() if value == 3 else value


def hidden_error():
    raise NotPickled("text")


def explode():
    raise RuntimeError("does not unpickle")


class Explosive:
    """Does not unpickle, anywhere."""

    def __reduce__(self):
        return explode, ()


def explosive():
    return Explosive()


def explosive_at_three(value):
    return Explosive() if value == 3 else value


class ExplosiveError(Exception):
    """An exception of the usual broken kind: its arguments are not those of its constructor."""

    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


def explosive_error():
    raise ExplosiveError("one", "two")


class FatalToLoad:
    """Ends whoever unpickles it."""

    def __reduce__(self):
        return os._exit, (9,)


class Seen:
    """Says in which process it was pickled."""

    def __init__(self):
        self.where = None

    def __getstate__(self):
        return {"where": os.getpid()}


class CallableThing:
    def __init__(self, base):
        self.base = base

    def __call__(self, value):
        return self.base + value

    def method(self, value):
        return self.base * value

    @classmethod
    def of_class(cls, value):
        return cls.__name__, value

    @staticmethod
    def static(value):
        return -value


# A function that is found by name through `__getattr__`, which notes who looks

_lookups = None


def count_lookups(path):
    global _lookups
    _lookups = path


def _counted(value):
    return value + 1


_counted.__name__ = _counted.__qualname__ = "counted"


def __getattr__(name):
    if name == "counted":
        if _lookups:
            attempt(_lookups)
        return _counted
    raise AttributeError(name)


# Workers


def whoami():
    process = multiprocessing.current_process()
    parent = multiprocessing.parent_process()
    return {
        "pid": os.getpid(),
        "name": process.name,
        "daemon": process.daemon,
        "identity": process._identity,
        "parent": parent.pid if parent else None,
        "cwd": os.getcwd(),
        "main_thread": threading.current_thread() is threading.main_thread(),
        "sigint": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        "sigterm": signal.getsignal(signal.SIGTERM),
        "method": multiprocessing.get_start_method(allow_none=True),
        "argv": sys.argv,
        "path": sys.path,
    }


def read_stdin():
    return sys.stdin.read()


def stdin_name():
    return os.readlink("/proc/self/fd/0")


def environment(name):
    return os.environ.get(name)


def ignore_sigterm():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def keep_given(*values):
    global given
    given = values


def get_given():
    return given


def note_start(path):
    attempt(path)


def failing_initializer(path=None):
    if path:
        attempt(path)
    raise LookupError("no such model")


def dying_initializer(path):
    attempt(path)
    os._exit(5)


def exiting_initializer():
    sys.exit(4)


def slow_initializer(seconds):
    time.sleep(seconds)


def add_to_counter(amount):
    lock, counter = given
    for _ in range(amount):
        with lock:
            counter.value += 1
    return amount


def put_into_queue(value):
    given[0].put((os.getpid(), value))


def set_event():
    given[0].set()


def fill_array(place, value):
    given[0][place] = value


def call_given(*args):
    return given[0](*args)


def nested(values):
    from support import make

    with make(2) as pool:
        return pool.map(square, values)


def use_pool_in_child(pool_id):
    return pool_id


def ignore_sigterm_and_nap(seconds):
    ignore_sigterm()
    time.sleep(seconds)


def touch_and_nap(path, seconds):
    attempt(path)
    time.sleep(seconds)


def random_numbers():
    import random

    return random.random()


# Arrays (numpy only where it is used: workers that are spawned import this module)


def total(array):
    return float(array.sum())


def add_one(array):
    return array + 1


def make_array(count, value):
    import numpy

    return numpy.full(count, value, dtype="f8")


def make_array_of(value):
    return make_array(200_000, float(value))


def make_many(count, size):
    import numpy

    return [numpy.full(size, float(i)) for i in range(count)]


def write_all(array, value):
    """Writes over its argument, and says what it was and what it is."""
    before = float(array.sum())
    array[...] = value
    return array.flags.writeable, before, float(array.sum())


def write_and_die_first(path, array):
    """Spoils its argument and dies, the first time."""
    first = attempt(path) == 1
    found = float(array.sum())
    array[...] = -1.0
    if first:
        killed(signal.SIGKILL)
    return found


def keep(value):
    kept.append(value)
    return os.getpid()


def kept_total():
    return os.getpid(), [float(array.sum()) for array in kept]


def look_at_array(array):
    from support import mapping_at

    address = array.__array_interface__["data"][0]
    return {
        "type": type(array).__name__,
        "shape": array.shape,
        "dtype": str(array.dtype),
        "c": array.flags.c_contiguous,
        "f": array.flags.f_contiguous,
        "writeable": array.flags.writeable,
        "mapping": mapping_at(address + array.nbytes // 2) if array.nbytes else None,
    }


def describe_buffer(value):
    return type(value).__name__, len(value), bytes(value[:3]), bytes(value[-3:])


def same_object(left, right):
    return left is right


def shares_memory(left, right):
    import numpy

    return numpy.shares_memory(left, right)
