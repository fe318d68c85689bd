"""What the tests share: the pool under test, looks at processes and memory, programs run apart.

`RINGPOOL_TEST_IMPL=multiprocessing` runs the tests against multiprocessing.Pool, to see that they
ask for what it does; those marked `ours` are left out then.
"""

import contextlib
import multiprocessing
import multiprocessing.pool
import os
import subprocess
import sys
import time
from pathlib import Path

OURS = os.environ.get("RINGPOOL_TEST_IMPL", "ringpool") == "ringpool"
HERE = Path(__file__).resolve().parent
METHODS = ("fork", "spawn", "forkserver")

if OURS:
    from ringpool import Pool
else:
    from multiprocessing.pool import Pool

PACKAGE = "ringpool" if OURS else "multiprocessing"


def make(processes=2, *args, method="fork", **kwds):
    """A pool whose workers start by `method`."""
    return Pool(processes, *args, context=multiprocessing.get_context(method), **kwds)


def eventually(condition, seconds=20.0):
    """Waits until `condition()` is true and returns it. A deadline for hangs, not a measure."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.005)


# Processes


def stat(pid):
    """(state, parent) of a process, or None."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return fields[0], int(fields[1])


def alive(pid):
    """Whether a process runs; one that has ended and was not waited for does not."""
    found = stat(pid)
    return found is not None and found[0] not in "ZX"


def descendants(root=None):
    """The processes under `root` (this one), ended ones that nobody waited for included."""
    root = root or os.getpid()
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            found = stat(name)
            if found is not None:
                parents[int(name)] = found[1]
    result = set()
    fresh = {root}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - result
        result |= fresh
    return result


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def helpers():
    """Processes that multiprocessing keeps for the life of the program: its fork server, its tracker."""
    result = set()
    for module, name, attribute in (
        ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
        ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
    ):
        if module in sys.modules:
            result.add(getattr(getattr(sys.modules[module], name), attribute, None))
    return result - {None}


def children():
    """What was started by this process and is not one of multiprocessing's own helpers."""
    return descendants() - helpers()


# Memory


def segments(pid="self"):
    """Device and inode of the nameless or shared memory that a process maps."""
    result = set()
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return result
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith(("/memfd:", "/dev/shm")):
            result.add((fields[3], int(fields[4])))
    return result


def holders(wanted):
    """Processes that map or have open one of these segments."""
    found = set()
    inodes = {inode for _, inode in wanted}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        if segments(name) & wanted:
            found.add(int(name))
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{name}/fd"):
                with contextlib.suppress(OSError):
                    if not os.readlink(f"/proc/{name}/fd/{fd}").startswith(("/memfd:", "/dev/shm")):
                        continue
                    if os.stat(f"/proc/{name}/fd/{fd}").st_ino in inodes:
                        found.add(int(name))
    return found


def mapping_at(address):
    """(permissions, path) of the mapping that an address of this process lies in."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        low, high = (int(part, 16) for part in fields[0].split("-"))
        if low <= address < high:
            return fields[1], fields[5] if len(fields) == 6 else ""
    return None


def in_pool_memory(array):
    """Whether a numpy array's items lie in a segment of shared memory."""
    address = array.__array_interface__["data"][0]
    return mapping_at(address + array.nbytes // 2)[1].startswith("/memfd:")


def open_descriptors():
    """What this process has open, by name."""
    result = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            result[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
    return result


def cpu_seconds(pid):
    """What all threads of a process have used. From schedstat: in nanoseconds, not in ticks."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return total / 1e9


# Programs


def program(path, text, *args, env=None, **kwds):
    """Starts a program of its own from `text`, which may import what the tests import."""
    path = Path(path)
    path.write_text(text)
    environment = dict(os.environ, PYTHONPATH=str(HERE), **(env or {}))
    kwds.setdefault("stdout", subprocess.PIPE)
    kwds.setdefault("stderr", subprocess.PIPE)
    return subprocess.Popen(
        [sys.executable, *(["-W", kwds.pop("warn")] if "warn" in kwds else []), str(path), *map(str, args)],
        env=environment,
        text=True,
        **kwds,
    )


def run(path, text, *args, seconds=50, **kwds):
    """Runs a program to its end: (exit code, output, errors). A program that hangs is killed and fails."""
    process = program(path, text, *args, **kwds)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the program hangs\n{out}\n{err}") from None
    return process.returncode, out, err
