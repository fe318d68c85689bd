"""One turn: one contestant does one work in this process and prints one line of JSON.

`run.py` starts it; by hand: python bench/python/turn.py CONTESTANT WORK [--quick]
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

PROCESSES = 2
CLOCK = time.perf_counter_ns


# What workers run. Importable, as all of it has to be where workers are spawned.


def same(value):
    return value


def total(array):
    return float(array.sum())


def add_one(array):
    return array + 1


def add_one_in_place_of_the_pool(array):
    """The same, its result made where it will lie."""
    import numpy

    import ringpool

    result = ringpool.empty(array.shape, array.dtype)
    numpy.add(array, 1, out=result)
    return result


def start(contestant, method="fork"):
    if contestant == "pipe":
        from pipe_pool import PipePool

        return PipePool(PROCESSES)
    import multiprocessing

    context = multiprocessing.get_context(method)
    if contestant == "multiprocessing":
        return context.Pool(PROCESSES)
    from ringpool import Pool

    return Pool(PROCESSES, context=context)


def warm(pool):
    """Until both workers have met the function, and the processors are awake."""
    end = CLOCK() + 100_000_000
    while CLOCK() < end:
        pool.apply(same, (1,))


def timed(work, least=3, seconds=0.5):
    """The median time of `work()` in nanoseconds, after one for nothing, of at least `least`."""
    work()
    times = []
    end = CLOCK() + int(seconds * 1e9)
    while len(times) < least or (CLOCK() < end and len(times) < 1000):
        begun = CLOCK()
        work()
        times.append(CLOCK() - begun)
    return statistics.median(times)


def check(condition, what):
    if not condition:
        raise SystemExit(f"a wrong result: {what}")


# Works: each returns nanoseconds (or bytes, or a share) for one of what its name says


def apply(pool, scale):
    warm(pool)
    times = []
    for n in range(scale(20_000)):
        begun = CLOCK()
        value = pool.apply(same, (n,))
        times.append(CLOCK() - begun)
        check(value == n, "apply")
    times.sort()
    return {"ns": times[len(times) // 2], "p99": times[len(times) * 99 // 100]}


def apply_async(pool, scale):
    warm(pool)
    count = scale(50_000)

    def once():
        results = [pool.apply_async(same, (n,)) for n in range(count)]
        check(sum([r.get() for r in results]) == sum(range(count)), "apply_async")

    return {"ns": timed(once, 2, 0) / count}


def map_one(pool, scale):
    warm(pool)
    items = list(range(scale(50_000)))

    def once():
        values = pool.map(same, items) if pool_is_pipes(pool) else pool.map(same, items, 1)
        check(values == items, "map")

    return {"ns": timed(once, 2, 0.3) / len(items)}


def imap_unordered(pool, scale):
    warm(pool)
    count = scale(50_000)

    def once():
        found = 0
        for value in pool.imap_unordered(same, range(count)):
            found += value
        check(found == sum(range(count)), "imap_unordered")

    return {"ns": timed(once, 2, 0.3) / count}


def map_default(items):
    def work(pool, scale):
        warm(pool)
        count = scale(1_000_000)
        source = items(count)

        def once():
            values = pool.map(same, source)
            check(len(values) == count and values[-1] == count - 1, "map")

        return {"ns": timed(once, 3, 1) / count}

    return work


def numbers(count):
    import numpy

    return numpy.arange(count, dtype="f8")


def array(scale):
    """128 MiB of doubles."""
    import numpy

    return numpy.ones(scale((128 << 20) // 8))


def array_sum(pool, scale):
    data = array(scale)
    warm(pool)

    def once():
        check(pool.apply(total, (data,)) == data.size, "sum")

    return {"ns": timed(once)}


def array_sum_shared(pool, scale):
    """The same array, made by `pool.share`."""
    data = pool.share(array(scale))
    warm(pool)

    def once():
        check(pool.apply(total, (data,)) == data.size, "sum")

    return {"ns": timed(once)}


def array_echo(pool, scale):
    data = array(scale)
    warm(pool)

    def once():
        check(pool.apply(add_one, (data,))[-1] == 2, "array")

    return {"ns": timed(once)}


def array_echo_shared(pool, scale):
    """From an array made by `pool.share` into one made by `ringpool.empty`."""
    data = pool.share(array(scale))
    warm(pool)

    def once():
        check(pool.apply(add_one_in_place_of_the_pool, (data,))[-1] == 2, "array")

    return {"ns": timed(once)}


def pool_is_pipes(pool):
    return type(pool).__name__ == "PipePool"


# What the machine can do, without any pool


def read_only(_, scale):
    data = array(scale)
    return {"ns": timed(lambda: check(total(data) == data.size, "sum"))}


def copy_and_read(_, scale):
    import numpy

    data = array(scale)
    room = numpy.empty_like(data)

    def once():
        numpy.copyto(room, data)
        check(total(room) == data.size, "sum")

    return {"ns": timed(once)}


def add_here(_, scale):
    """What the task of `array-echo` does, its result in memory that is new each time, as everybody's is."""
    data = array(scale)
    return {"ns": timed(lambda: check(add_one(data)[-1] == 2, "array"))}


def copy_and_add(_, scale):
    import numpy

    data = array(scale)
    room = numpy.empty_like(data)
    result = numpy.empty_like(data)

    def once():
        numpy.copyto(room, data)
        numpy.add(room, 1, out=result)
        check(result[-1] == 2, "array")

    return {"ns": timed(once)}


def pickles(_, scale):
    """Of a call's arguments and its result, there and back: what any pool of processes has to do."""
    import pickle

    def once():
        for n in range(1000):
            pickle.loads(pickle.dumps((n,), 5))
            pickle.loads(pickle.dumps(n, 5))

    return {"ns": timed(once) / 1000}


def loop(_, scale):
    """`[same(item) for item in items]`, half of it, as there are two workers."""
    items = range(scale(1_000_000))
    return {"ns": timed(lambda: [same(item) for item in items]) / len(items) / PROCESSES}


# Starting and resting


def cold(contestant, scale, method="fork"):
    """From a call of the constructor, in a process that has imported all, to the first result."""
    import importlib

    importlib.import_module({"pipe": "pipe_pool"}.get(contestant, contestant))
    import multiprocessing.pool  # noqa: F401

    if method == "forkserver":
        start(contestant, method).terminate()  # its server is there already
    begun = CLOCK()
    pool = start(contestant, method)
    check(pool.apply(same, (5,)) == 5, "cold")
    ended = CLOCK() - begun
    if pool_is_pipes(pool):
        pool.close()
    else:
        pool.terminate()
        pool.join()
    return {"ns": ended}


def imports(contestant, scale):
    import subprocess

    module = {"pipe": "pipe_pool", "multiprocessing": "multiprocessing.pool"}.get(contestant, contestant)

    def once(text):
        begun = CLOCK()
        subprocess.run([sys.executable, "-c", text], check=True, cwd=Path(__file__).parent)
        return CLOCK() - begun

    pairs = [(once(f"import {module}"), once("pass")) for _ in range(scale(7) if scale(7) > 3 else 3)]
    return {"ns": statistics.median(a - b for a, b in pairs)}


def proportional(pid):
    """Bytes of memory, those that are shared divided by who shares them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no smaps_rollup")


def family():
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = Path(f"/proc/{name}/stat").read_text()
            except OSError:
                continue
            parents[int(name)] = int(text[text.rindex(")") + 2 :].split()[1])
    found = {os.getpid()}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def memory(contestant, scale):
    """What a pool adds after 10,000 tasks: all its processes, less the same program before it."""
    import importlib

    importlib.import_module({"pipe": "pipe_pool"}.get(contestant, contestant))
    before = proportional(os.getpid())
    pool = start(contestant)
    values = pool.map(same, range(scale(10_000)))
    check(len(values) == scale(10_000), "map")
    del values
    time.sleep(0.3)
    added = sum(proportional(pid) for pid in family()) - before
    if pool_is_pipes(pool):
        pool.close()
    else:
        pool.terminate()
        pool.join()
    return {"bytes": added}


def used():
    total_ns = 0
    for pid in family():
        for task in Path(f"/proc/{pid}/task").iterdir():
            total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns


def idle(contestant, scale):
    """Share of one processor that the processes of a resting pool use, the caller's included."""
    pool = start(contestant)
    warm(pool)
    time.sleep(0.2)
    seconds = scale(3) if scale(3) > 1 else 1
    before = used()
    begun = CLOCK()
    time.sleep(seconds)
    # Looking costs something, too: the same look, once more, shows how much.
    middle = used()
    spent = middle - before - (used() - middle)
    if pool_is_pipes(pool):
        pool.close()
    else:
        pool.terminate()
        pool.join()
    return {"share": max(spent, 0) / (CLOCK() - begun)}


ALL = ("ringpool", "multiprocessing", "pipe")
POOLS = ("ringpool", "multiprocessing")
FLOOR = ("floor",)

#: name: (contestants, function, whether it is given a pool that runs)
WORKS = {
    "apply": (ALL, apply, True),
    "apply-async": (POOLS, apply_async, True),
    "map-one": (ALL, map_one, True),
    "imap-unordered": (ALL, imap_unordered, True),
    "map-list": (POOLS, map_default(lambda n: list(range(n))), True),
    "map-range": (POOLS, map_default(range), True),
    "map-array": (POOLS, map_default(numbers), True),
    "array-sum": (ALL, array_sum, True),
    "array-sum-shared": (("ringpool",), array_sum_shared, True),
    "array-echo": (ALL, array_echo, True),
    "array-echo-shared": (("ringpool",), array_echo_shared, True),
    "cold": (ALL, cold, False),
    "cold-spawn": (POOLS, lambda c, s: cold(c, s, "spawn"), False),
    "cold-forkserver": (POOLS, lambda c, s: cold(c, s, "forkserver"), False),
    "import": (POOLS, imports, False),
    "memory": (ALL, memory, False),
    "idle": (ALL, idle, False),
    "pickles": (FLOOR, pickles, False),
    "loop": (FLOOR, loop, False),
    "read": (FLOOR, read_only, False),
    "copy-read": (FLOOR, copy_and_read, False),
    "add": (FLOOR, add_here, False),
    "copy-add": (FLOOR, copy_and_add, False),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("contestant", choices=[*ALL, *FLOOR])
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()

    def scale(count):
        return max(1, count // 10) if arguments.quick else count

    contestants, function, running = WORKS[arguments.work]
    if arguments.contestant not in contestants:
        raise SystemExit(f"{arguments.contestant} does not do {arguments.work}")
    if running:
        pool = start(arguments.contestant)
        figures = function(pool, scale)
        if pool_is_pipes(pool):
            pool.close()
        else:
            pool.close()
            pool.join()
    else:
        figures = function(arguments.contestant, scale)
    print(json.dumps({"contestant": arguments.contestant, "work": arguments.work, **figures}))


if __name__ == "__main__":
    main()
