"""What a worker is: its name, its parent, its surroundings; pools within workers and daemons."""

import multiprocessing
import os
import signal
import sys
import threading

import pytest
import support
import tasks
from support import make, run

NAMES = {"fork": "ForkPoolWorker-", "spawn": "SpawnPoolWorker-", "forkserver": "ForkServerPoolWorker-"}


def test_who_a_worker_is(method, make_pool):
    pool = make_pool(3, method=method)
    seen = {who["pid"]: who for who in pool.map(whoami_after, [0.1] * 12, 1)}
    assert len(seen) == 3
    first = min(who["identity"][-1] for who in seen.values())
    for who in seen.values():
        number = who["identity"][-1]
        assert first <= number < first + 3
        assert who["name"].startswith(NAMES[method])
        assert who["name"].endswith("-" + ":".join(map(str, who["identity"])))
        assert who["daemon"]
        assert who["parent"] == os.getpid()
        assert who["cwd"] == os.getcwd()
        assert who["main_thread"]
        assert who["path"][-1] == sys.path[-1]
    assert {worker.name for worker in pool._pool} == {who["name"] for who in seen.values()}


def whoami_after(seconds):
    tasks.nap(seconds)
    return tasks.whoami()


def test_identities_begin_with_one(tmp_path):
    text = """
import support, tasks
def identity(_):
    tasks.nap(0.1)
    return tasks.whoami()["identity"]
if __name__ == "__main__":
    with support.make(3) as pool:
        print(sorted(set(pool.map(identity, range(9), 1))))
"""
    code, out, err = run(tmp_path / "program.py", text)
    assert (code, out) == (0, "[(1,), (2,), (3,)]\n"), err


def test_stdin_is_closed_to_workers(shared_pool):
    assert shared_pool.apply(tasks.stdin_name) == "/dev/null"
    assert shared_pool.apply(tasks.read_stdin) == ""


def test_environment_and_directory(method, make_pool, monkeypatch, tmp_path):
    monkeypatch.setenv("RINGPOOL_SEEN", "yes")
    monkeypatch.chdir(tmp_path)
    if method == "forkserver":
        pytest.skip("a fork server keeps the environment that it was started in")
    pool = make_pool(1, method=method)
    assert pool.apply(tasks.environment, ("RINGPOOL_SEEN",)) == "yes"
    assert pool.apply(tasks.whoami)["cwd"] == str(tmp_path)


def test_the_start_method_that_workers_see(shared_pool):
    expected = shared_pool._ctx.get_start_method()
    if expected != "fork":
        assert shared_pool.apply(tasks.whoami)["method"] == expected


def test_the_default_start_method(tmp_path):
    text = """
import multiprocessing, sys, support, tasks
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    with support.Pool(1) as pool:
        print(pool._pool[0].name, pool.apply(tasks.square, (3,)))
"""
    for method, name in NAMES.items():
        code, out, err = run(tmp_path / "program.py", text, method)
        assert code == 0, err
        assert out.split() == [name + "1", "9"]


def test_functions_of_the_main_module(tmp_path):
    text = """
import sys
import support

class Thing:
    def __init__(self, value):
        self.value = value
    def __eq__(self, other):
        return type(other) is Thing and other.value == self.value
    def method(self, value):
        return self.value + value

class Trouble(Exception):
    pass

def double(value):
    return value * 2

def make(value):
    return Thing(value)

def trouble():
    raise Trouble("here")

if __name__ == "__main__":
    only_here = 5
    with support.make(2, method=sys.argv[1]) as pool:
        assert pool.map(double, range(5)) == [0, 2, 4, 6, 8]
        assert pool.apply(make, (3,)) == Thing(3)
        assert pool.apply(Thing(3).method, (4,)) == 7
        assert pool.map(Thing, [1, 2]) == [Thing(1), Thing(2)]
        try:
            pool.apply(trouble)
        except Trouble as error:
            print(error)
"""
    for method in NAMES:
        code, out, err = run(tmp_path / "program.py", text, method)
        assert (code, out) == (0, "here\n"), err


def test_a_program_run_as_a_module(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "other.py").write_text("def triple(value):\n    return value * 3\n")
    (package / "program.py").write_text(
        "import sys\n"
        f"sys.path.append({str(support.HERE)!r})\n"
        "import support\n"
        "from .other import triple\n"
        "def double(value):\n    return triple(value) * 2\n"
        "if __name__ == '__main__':\n"
        "    with support.make(1, method=sys.argv[1]) as pool:\n"
        "        print(pool.map(double, [1, 2]))\n"
    )
    import subprocess

    for method in NAMES:
        done = subprocess.run(
            [sys.executable, "-m", "package.program", method],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "[6, 12]\n"


def test_a_program_from_standard_input():
    import subprocess

    text = f"""
import sys
sys.path.append({str(support.HERE)!r})
import support, tasks
with support.make(1, method="fork") as pool:
    print(pool.apply(tasks.square, (3,)))
"""
    done = subprocess.run([sys.executable, "-"], input=text, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, "9\n"), done.stderr


# Pools within


@pytest.mark.ours
def test_a_pool_within_a_worker(shared_pool):
    """Workers are daemonic, whom multiprocessing forbids children."""
    assert shared_pool.apply(nested, ("ringpool", [1, 2, 3])) == [1, 4, 9]
    assert shared_pool.map(nested_squares, [[1], [2, 3], [4]], 1) == [[1], [4, 9], [16]]


def nested(implementation, values):
    with make(2) as pool:
        return pool.map(tasks.square, values)


def nested_squares(values):
    return nested(None, values)


@pytest.mark.ours
def test_pools_three_deep(make_pool):
    pool = make_pool(1)
    assert pool.apply(deeper, (2,)) == [3, 2, 1]


def deeper(levels):
    if not levels:
        return [1]
    with make(1) as pool:
        inner = pool.apply(deeper, (levels - 1,))
    return [inner[0] + 1, *inner]


@pytest.mark.ours
@pytest.mark.parametrize("inner", support.METHODS)
def test_nested_pools_of_other_methods(make_pool, inner):
    # multiprocessing's fork server cannot be used by a forked child of who started it.
    pool = make_pool(1, method="spawn")
    assert pool.apply(nested_of, (inner, [1, 2, 3])) == [1, 4, 9]


def nested_of(method, values):
    with make(1, method=method) as pool:
        return pool.map(tasks.square, values)


@pytest.mark.ours
def test_a_nested_pool_ends_with_its_worker(make_pool):
    import ringpool

    pool = make_pool(1)
    pids = pool.apply(leave_a_pool_open)
    assert all(support.alive(pid) for pid in pids)
    with pytest.raises(ringpool.WorkerDied):
        pool.apply(tasks.killed, (signal.SIGKILL,))
    assert support.eventually(lambda: not any(support.alive(pid) for pid in pids))


@pytest.mark.ours
@pytest.mark.parametrize("end", ["close", "terminate"])
def test_an_open_nested_pool_ends_with_the_outer(make_pool, end):
    pool = make_pool(1)
    pids = pool.apply(leave_a_pool_open)
    getattr(pool, end)()
    pool.join()
    assert support.eventually(lambda: not any(support.alive(pid) for pid in pids))


def leave_a_pool_open():
    pool = make(2)
    tasks.kept.append(pool)
    pool.map(tasks.square, range(4))
    return [worker.pid for worker in pool._pool]


@pytest.mark.ours
def test_a_pool_in_a_daemonic_process(method):
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=in_a_process, args=(theirs, "daemon"), daemon=True)
    process.start()
    assert ours.poll(40) and ours.recv() == [0, 1, 4]
    process.join(40)
    assert process.exitcode == 0


def test_a_pool_in_a_process(method):
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=in_a_process, args=(theirs, "process"))
    process.start()
    assert ours.poll(40) and ours.recv() == [0, 1, 4]
    process.join(40)
    assert process.exitcode == 0


def in_a_process(connection, _):
    with make(2) as pool:
        connection.send(pool.map(tasks.square, range(3)))


@pytest.mark.ours
def test_other_processes_from_a_worker(make_pool):
    """subprocess works there as anywhere."""
    import subprocess

    pool = make_pool(1)
    assert pool.apply(subprocess.check_output, (["echo", "hello"],)) == b"hello\n"


# Forked children


@pytest.mark.ours
def test_a_forked_child_gets_an_error(make_pool):
    import ringpool

    pool = make_pool(2)
    result = pool.apply_async(tasks.nap_and, (1, 5))
    iterator = pool.imap(tasks.square, range(10))
    next(iterator)
    calls = [
        lambda: pool.apply(tasks.square, (1,)),
        lambda: pool.apply_async(tasks.square, (1,)).get(),
        lambda: pool.map(tasks.square, [1]),
        lambda: list(pool.imap(tasks.square, [1])),
        lambda: result.get(),
        lambda: next(iterator),
        lambda: list(iterator),
    ]
    for call in calls:
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            status = 1
            try:
                call()
            except ringpool.RingpoolError as error:
                status = 0 if "fork" in str(error) else 2
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                status = 3
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert result.get() == 5
    assert list(iterator) == [n * n for n in range(1, 10)]


@pytest.mark.ours
def test_a_forked_child_may_have_a_pool_of_its_own(make_pool):
    pool = make_pool(1)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        status = 1
        try:
            with make(1) as other:
                status = 0 if other.map(tasks.square, [3, 4]) == [9, 16] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.apply(tasks.square, (3,)) == 9


@pytest.mark.ours
def test_a_forked_child_ends_without_ending_the_pool(make_pool, tmp_path):
    text = """
import os, sys
import support, tasks
if __name__ == "__main__":
    pool = support.make(2)
    assert pool.apply(tasks.square, (3,)) == 9
    child = os.fork()
    if child == 0:
        sys.exit(0)           # with all of the interpreter's last rites
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    child = os.fork()
    if child == 0:
        pool.terminate()      # not its own
        sys.exit(0)
    os.waitpid(child, 0)
    child = os.fork()
    if child == 0:
        del pool
        import gc
        gc.collect()
        sys.exit(0)
    os.waitpid(child, 0)
    print(pool.map(tasks.square, range(4)))
    pool.close()
    pool.join()
"""
    code, out, err = run(tmp_path / "program.py", text)
    assert (code, out) == (0, "[0, 1, 4, 9]\n"), err


@pytest.mark.ours
def test_children_of_multiprocessing_beside_a_pool(make_pool, method):
    pool = make_pool(2)
    context = multiprocessing.get_context(method)
    process = context.Process(target=tasks.square, args=(3,))
    process.start()
    assert pool.map(tasks.square, range(10)) == [n * n for n in range(10)]
    process.join(40)
    assert process.exitcode == 0


def test_two_pools_share_nothing(make_pool):
    first, second = make_pool(2), make_pool(2)
    assert not {w.pid for w in first._pool} & {w.pid for w in second._pool}
    results = [(first if n % 2 else second).apply_async(tasks.square, (n,)) for n in range(100)]
    assert [r.get() for r in results] == [n * n for n in range(100)]
    first.terminate()
    first.join()
    assert second.map(tasks.square, range(10)) == [n * n for n in range(10)]


# Threads


def test_many_threads_use_one_pool(shared_pool):
    errors = []

    def work(number):
        try:
            for n in range(15):
                assert shared_pool.apply(tasks.square, (n,)) == n * n
                assert shared_pool.map(tasks.square, range(number, number + 20)) == [
                    m * m for m in range(number, number + 20)
                ]
                assert list(shared_pool.imap(tasks.square, range(10))) == [m * m for m in range(10)]
                assert sorted(shared_pool.imap_unordered(tasks.square, range(10), 3)) == [
                    m * m for m in range(10)
                ]
                with pytest.raises(ValueError):
                    shared_pool.apply(tasks.fail)
                assert shared_pool.apply_async(tasks.identity, (bytes(50_000),)).get() == bytes(50_000)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert errors == []
    assert not any(thread.is_alive() for thread in threads)


def test_pools_made_in_threads():
    errors = []

    def work():
        try:
            for _ in range(3):
                with make(1, method="spawn" if support.OURS else "fork") as pool:
                    assert pool.map(tasks.square, range(10)) == [n * n for n in range(10)]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert errors == []


def test_a_pool_made_in_a_thread_that_ends(method):
    """Workers live on when the thread that started them does not."""
    box = []
    thread = threading.Thread(target=lambda: box.append(make(2, method=method)))
    thread.start()
    thread.join()
    pool = box.pop()
    assert pool.map(tasks.square, range(10)) == [n * n for n in range(10)]
    tasks.nap(0.3)
    assert pool.map(tasks.square, range(10)) == [n * n for n in range(10)]
    pool.terminate()
    pool.join()


def test_other_threads_run_while_one_waits(make_pool):
    pool = make_pool(1)
    count = 0
    stop = threading.Event()

    def spin():
        nonlocal count
        while not stop.wait(0.001):
            count += 1

    thread = threading.Thread(target=spin)
    thread.start()
    for wait in (
        lambda: pool.apply(tasks.nap, (0.2,)),
        lambda: pool.apply_async(tasks.nap, (0.2,)).get(),
        lambda: pool.apply_async(tasks.nap, (0.2,)).wait(5),
        lambda: pool.map(tasks.nap, [0.2]),
        lambda: list(pool.imap(tasks.nap, [0.2])),
    ):
        before = count
        wait()
        assert count > before + 5
    stop.set()
    thread.join()
    pool.close()
    pool.join()


def test_threads_in_tasks(shared_pool):
    assert shared_pool.apply(sum_in_threads, (4,)) == sum(range(4))


def sum_in_threads(count):
    got = []
    threads = [threading.Thread(target=got.append, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(got)


def test_asyncio_in_tasks(fork_pool):
    assert fork_pool.apply(run_async) == 5


def run_async():
    import asyncio

    async def five():
        await asyncio.sleep(0)
        return 5

    return asyncio.run(five())


def test_results_within_asyncio(fork_pool):
    import asyncio

    async def main():
        loop = asyncio.get_running_loop()

        def call(n):
            future = loop.create_future()
            fork_pool.apply_async(
                tasks.square, (n,), callback=lambda value: loop.call_soon_threadsafe(future.set_result, value)
            )
            return future

        return await asyncio.gather(*(call(n) for n in range(20)))

    assert asyncio.run(main()) == [n * n for n in range(20)]
