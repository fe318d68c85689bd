"""Programs that are killed or interrupted: what they leave behind."""

import os
import signal
import subprocess
import time

import pytest
import support
from support import METHODS, program

pytestmark = pytest.mark.ours

PARENT = """
import os, sys, time
import support, tasks
if __name__ == "__main__":
    what, method, directory = sys.argv[1:]
    if what == "initializer":
        pool = support.make(2, tasks.touch_and_nap, (directory + "/init", 300), method=method)
        support.eventually(lambda: os.path.exists(directory + "/init"))
    else:
        pool = support.make(2, method=method)
        pool.map(tasks.square, range(10), 1)
    if what == "busy":
        pool.map_async(tasks.nap, [300] * 4, 1)
    if what == "computing":
        pool.map_async(endless, [1, 2], 1)
    if what == "deaf":
        pool.map_async(tasks.ignore_sigterm_and_nap, [300] * 4, 1)
    if what == "large":
        kept = pool.apply(bytes, (50_000_000,))
    if what == "forked":
        # Another child, which inherits whatever there is to inherit, lives on.
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "300"]) if directory.endswith("exec") else time.sleep(300)
    time.sleep(0.3)
    print(*[worker.pid for worker in pool._pool], flush=True)
    time.sleep(300)

def endless(_):
    while True:
        pass
"""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", ["idle", "busy", "computing", "initializer", "deaf", "large", "forked"])
def test_a_killed_parent_leaves_nothing(tmp_path, what, method):
    if what == "computing":
        text = PARENT.replace("if __name__", "def endless(_):\n    while True:\n        pass\nif __name__", 1)
    else:
        text = PARENT
    parent = program(tmp_path / "parent.py", text, what, method, tmp_path)
    line = parent.stdout.readline()
    others = set()
    try:
        workers = {int(pid) for pid in line.split()}
        assert len(workers) == 2, parent.stderr.read()
        assert all(support.alive(pid) for pid in workers)
        if what == "forked":
            others = {
                p for p in support.descendants(parent.pid) if support.stat(p)[1] == parent.pid
            } - workers
        memory = support.segments(parent.pid)
        assert memory
        parent.kill()
        parent.wait()
        # A second is promised; the rest is for a machine that is busy with other things.
        gone = support.eventually(lambda: not any(support.alive(pid) for pid in workers), 10)
        assert gone, {pid: support.command_line(pid) for pid in workers if support.alive(pid)}
        assert support.eventually(
            lambda: not support.holders(memory) - (others if what == "forked" else set()), 10
        )
        if what == "forked":
            assert not support.holders(memory)
    finally:
        parent.kill()
        parent.wait()
        for pid in others:
            if support.alive(pid) and support.stat(pid)[1] in (1, os.getpid()):
                os.kill(pid, signal.SIGKILL)
        parent.stdout.close()
        parent.stderr.close()


INTERRUPTED = """
import sys, time
import support, tasks
if __name__ == "__main__":
    how, method, directory = sys.argv[1:]
    with support.make(2, method=method) as pool:
        pool.map(tasks.square, range(10), 1)
        print(*[worker.pid for worker in pool._pool], flush=True)
        if how == "map":
            pool.map(tasks.nap, [300] * 4, 1)
        elif how == "apply":
            pool.apply(tasks.nap, (300,))
        elif how == "get":
            pool.apply_async(tasks.nap, (300,)).get()
        elif how == "get with timeout":
            pool.apply_async(tasks.nap, (300,)).get(300)
        elif how == "wait":
            pool.apply_async(tasks.nap, (300,)).wait()
        elif how == "imap":
            list(pool.imap(tasks.nap, [300] * 4))
        elif how == "imap_unordered":
            list(pool.imap_unordered(tasks.nap, [300] * 4))
        elif how == "join":
            pool.map_async(tasks.nap, [300] * 4)
            pool.close()
            pool.join()
        elif how == "many":
            while True:
                pool.map(tasks.square, range(1000), 1)
        elif how == "sleep":
            pool.map_async(tasks.nap, [300] * 4, 1)
            time.sleep(300)
"""

HOWS = ["map", "apply", "get", "get with timeout", "wait", "imap", "imap_unordered", "join", "many", "sleep"]


def interrupt(tmp_path, how, method, group):
    parent = program(tmp_path / "parent.py", INTERRUPTED, how, method, tmp_path, start_new_session=True)
    try:
        workers = {int(pid) for pid in parent.stdout.readline().split()}
        assert len(workers) == 2
        time.sleep(0.3)
        if group:
            os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
        else:
            parent.send_signal(signal.SIGINT)
        _, err = parent.communicate(timeout=40)
    except subprocess.TimeoutExpired:
        parent.kill()
        _out, err = parent.communicate()
        raise AssertionError(f"the program hangs after Ctrl-C\n{err}") from None
    assert err.count("Traceback (most recent call last)") == 1, err
    assert err.rstrip().endswith("KeyboardInterrupt"), err
    assert parent.returncode in (-signal.SIGINT, 130)
    assert support.eventually(lambda: not any(support.alive(pid) for pid in workers))


@pytest.mark.parametrize("how", HOWS)
def test_ctrl_c_gives_one_traceback(tmp_path, how):
    interrupt(tmp_path, how, "fork", True)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("how", ["map", "imap", "sleep"])
def test_ctrl_c_with_other_methods(tmp_path, how, method):
    interrupt(tmp_path, how, method, True)


@pytest.mark.parametrize("how", ["map", "get"])
def test_an_interrupt_of_the_parent_alone(tmp_path, how):
    interrupt(tmp_path, how, "fork", False)


CAUGHT = """
import os, signal, sys, time
import support, tasks
if __name__ == "__main__":
    pool = support.make(2)
    pool.map(tasks.square, range(10), 1)
    result = pool.apply_async(tasks.nap_and, (2, "kept"))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(os.getpgrp(), signal.SIGINT))
    try:
        result.get()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(result.get(), pool.apply(tasks.square, (5,)), flush=True)
    pool.close()
    pool.join()
"""


def test_a_caught_ctrl_c_costs_no_task(tmp_path):
    parent = program(tmp_path / "parent.py", CAUGHT, start_new_session=True)
    out, err = parent.communicate(timeout=40)
    assert out.split() == ["interrupted", "kept", "25"], err
    assert err == "" and parent.returncode == 0


STARTING = """
import sys
import support, tasks
if __name__ == "__main__":
    print("starting", flush=True)
    kept = []  # no pool is dropped: Python lets an interrupt go that comes while something is finalized
    while True:
        with support.make(2, method=sys.argv[1]) as pool:
            kept.append(pool)
            pool.map(tasks.square, range(10), 1)
"""


def interrupt_until_it_ends(parent):
    """Ctrl-C, again if need be: what is raised in a destructor or a callback, Python only reports."""
    for _ in range(6):
        os.killpg(parent.pid, signal.SIGINT)
        try:
            parent.communicate(timeout=5)
            return
        except subprocess.TimeoutExpired:
            pass


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_signals_while_pools_start_and_end(tmp_path, method, number):
    for delay in (0.02, 0.11, 0.23, 0.37):
        parent = program(tmp_path / "parent.py", STARTING, method, start_new_session=True)
        try:
            assert parent.stdout.readline() == "starting\n"
            time.sleep(delay)
            if number == signal.SIGINT:
                interrupt_until_it_ends(parent)
            else:
                parent.send_signal(number)
            parent.communicate(timeout=40)
        finally:
            parent.kill()
            parent.wait()

        def left(session=parent.pid):
            found = []
            for name in os.listdir("/proc"):
                if name.isdigit() and support.alive(int(name)):
                    try:
                        if os.getsid(int(name)) == session:
                            found.append((int(name), support.command_line(name)))
                    except ProcessLookupError:
                        pass
            return found

        assert support.eventually(lambda: not left(), 10), left()


TERMINATED = """
import signal, sys, time
import support, tasks
if __name__ == "__main__":
    pool = support.make(2)
    print(*[worker.pid for worker in pool._pool], flush=True)
    pool.map(tasks.nap, [300] * 4, 1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV])
def test_other_ends_of_the_parent(tmp_path, number):
    parent = program(tmp_path / "parent.py", TERMINATED)
    workers = {int(pid) for pid in parent.stdout.readline().split()}
    assert len(workers) == 2
    time.sleep(0.2)
    parent.send_signal(number)
    parent.communicate(timeout=40)
    assert parent.returncode == -number
    assert support.eventually(lambda: not any(support.alive(pid) for pid in workers), 10)


HANDLER = """
import signal, sys
import support, tasks
if __name__ == "__main__":
    seen = []
    signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    with support.make(2) as pool:
        assert pool.map(tasks.nap, [0.3] * 4, 1) == [None] * 4
        assert pool.apply(tasks.nap_and, (0.5, 5)) == 5
        assert pool.apply_async(tasks.nap_and, (0.5, 5)).get() == 5
        assert list(pool.imap(tasks.nap_and_first, [(0.2, n) for n in range(4)])) == [0, 1, 2, 3]
    # Or it would end the interpreter, which forgets handlers at its end.
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(len(seen) > 5)
"""


def test_signal_handlers_run_while_the_main_thread_waits(tmp_path):
    code, out, err = support.run(tmp_path / "program.py", HANDLER)
    assert (code, out) == (0, "True\n"), err
