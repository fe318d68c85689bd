"""Runs CPython's own tests of multiprocessing.Pool with ringpool.Pool in its place.

    python run.py [--pool ringpool|multiprocessing] [--method fork|spawn|forkserver]... [--only TEXT]

The tests are those of the interpreter that runs this: whatever in `test._test_multiprocessing` names
a pool, and `test.test_multiprocessing_main_handling`. Each test has a time limit. `excluded.py` lists
those that cannot hold, with the reason. Exit code 0: all others pass.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import importlib.util
import inspect
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

METHODS = ("fork", "spawn", "forkserver")
LIMIT = float(os.environ.get("RINGPOOL_TEST_LIMIT", "60"))
#: Which pool the tests are to have, in this process and in all that it starts.
CHOICE = "RINGPOOL_CPYTHON_TESTS"


def put_in_place() -> None:
    """Puts ringpool's pool where the tests look for multiprocessing's."""
    import multiprocessing
    import multiprocessing.managers

    import ringpool

    multiprocessing.Pool = ringpool.Pool  # type: ignore[assignment]
    register: Any = multiprocessing.managers.SyncManager.register
    register("Pool", ringpool.Pool, multiprocessing.managers.PoolProxy)


# Workers that are spawned run this file, too, and their tasks may make pools.
if os.environ.get(CHOICE) == "ringpool":
    put_in_place()


def ours(source: str) -> str:
    """A program of the tests with only its import changed."""
    source = re.sub(r"\bfrom multiprocessing import (?=.*\bPool\b)", "from ringpool import ", source)
    if "multiprocessing.Pool(" in source:
        source = re.sub(
            r"\bimport multiprocessing$", "import ringpool as multiprocessing", source, flags=re.M
        )
    return source


def change_programs() -> None:
    """The tests that run a program of their own run it with the import changed."""
    from test.support import script_helper

    run = script_helper.assert_python_ok

    def assert_python_ok(*args: str, **env: Any) -> Any:
        if args[0] == "-c":
            args = ("-c", ours(args[1]), *args[2:])
        elif "@test_" in args[0]:
            # A file that the test has just written.
            path = Path(args[0])
            path.write_text(ours(path.read_text()))
        return run(*args, **env)

    script_helper.assert_python_ok = assert_python_ok


def test_modules(method: str, change: bool) -> Iterator[types.ModuleType]:
    """The modules that have the tests of one start method."""
    yield importlib.import_module(f"with_{method}")
    # Its programs are default arguments, so they are changed in the text of the module.
    spec = importlib.util.find_spec("test.test_multiprocessing_main_handling")
    if spec is None or spec.origin is None:
        return
    source = Path(spec.origin).read_text()
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    exec(compile(ours(source) if change else source, spec.origin, "exec"), module.__dict__)
    yield module


def names_a_pool(test: unittest.TestCase) -> bool:
    kind = type(test)
    if kind.__name__.startswith("WithThreads"):
        return False  # the pool of threads is multiprocessing's own
    if kind.__name__.endswith("CmdLineTest"):
        return True
    if any("Pool" in base.__name__ for base in kind.__mro__):
        return True
    source = inspect.getsource(getattr(test, test._testMethodName))
    return re.search(r"\bPool\b|\bpool\b|pool_in_process", source) is not None


def tests_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests_of(test)
        elif isinstance(test, unittest.TestCase):
            yield test


def pool_tests(method: str, change: bool) -> list[unittest.TestCase]:
    found = []
    for module in test_modules(method, change):
        for test in tests_of(unittest.defaultTestLoader.loadTestsFromModule(module)):
            kind = type(test).__name__
            if kind.endswith("CmdLineTest") and kind.lower() != f"{method}cmdlinetest":
                continue
            if names_a_pool(test):
                found.append(test)
    return found


def short(test: unittest.TestCase) -> str:
    return f"{type(test).__name__}.{test._testMethodName}"


class Report(unittest.TestResult):
    """Tells the parent, line by line. Between two lines no more time may pass than a test may take."""

    def __init__(self, out: io.TextIOBase) -> None:
        super().__init__()
        self._out = out
        self.say("begin")

    def say(self, *words: str) -> None:
        self._out.write("\t".join(words) + "\n")
        self._out.flush()
        faulthandler.dump_traceback_later(LIMIT, exit=True, file=sys.__stderr__)

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self.say("start", short(test))

    def addSuccess(self, test: Any) -> None:
        self.say("passed", short(test))

    def addSkip(self, test: Any, reason: str) -> None:
        name = short(test) if hasattr(test, "_testMethodName") else str(test)
        self.say("skipped", name, reason.replace("\n", " "))

    def _failed(self, test: Any, error: Any) -> None:
        name = short(test) if hasattr(test, "_testMethodName") else str(test)
        print(f"\n{name}\n{self._exc_info_to_string(error, test)}", file=sys.stderr, flush=True)  # type: ignore[attr-defined]
        self.say("failed", name, repr(error[1]).replace("\n", " ")[:200])

    addError = _failed
    addFailure = _failed

    def addSubTest(self, test: Any, subtest: Any, error: Any) -> None:
        if error is not None:
            self._failed(test, error)


def child(method: str, wanted: list[str], out: io.TextIOBase) -> None:
    """Runs those tests in this process."""
    from test import support

    change = os.environ[CHOICE] == "ringpool"
    if change:
        change_programs()
        import multiprocessing.pool

        import ringpool

        # This one looks for it in another place, from where multiprocessing's own methods take it, too.
        original = multiprocessing.pool.Pool

        class There:
            def __enter__(self) -> None:
                multiprocessing.pool.Pool = ringpool.Pool  # type: ignore[misc]

            def __exit__(self, *exc: object) -> None:
                multiprocessing.pool.Pool = original  # type: ignore[misc]

    report = Report(out)
    suite = unittest.TestSuite()
    for test in pool_tests(method, change):
        if short(test) in wanted:
            if change and "multiprocessing.pool.Pool(" in inspect.getsource(
                getattr(test, test._testMethodName)
            ):
                place = There()
                test.setUp = place.__enter__  # type: ignore[method-assign]
                test.tearDown = lambda place=place: place.__exit__()  # type: ignore[method-assign, misc]
            suite.addTest(test)
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        suite.run(report)
        os.chdir("/")
    if support.environment_altered:
        report.say("failed", "the end", "processes or threads are left, see above")
    faulthandler.cancel_dump_traceback_later()
    report.say("end")
    faulthandler.cancel_dump_traceback_later()


class Method:
    """All tests of one start method, in a child that is started anew after one that hangs or crashes."""

    def __init__(self, method: str, pool: str, only: str) -> None:
        self.method = method
        self.pool = pool
        self.only = only
        self.outcomes: dict[str, tuple[str, str]] = {}
        self.log = ""
        self.seconds = 0.0

    def _start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", __file__, "--child", *args],
            env=dict(os.environ, **{CHOICE: self.pool}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _talk(self, process: subprocess.Popen[str]) -> list[list[str]]:
        """All lines of a child; then nothing is left of it."""
        errors: list[str] = []
        lines: list[list[str]] = []

        def follow() -> None:
            for line in process.stdout or ():
                lines.append(line.rstrip("\n").split("\t"))

        readers = [
            threading.Thread(target=follow),
            threading.Thread(target=lambda: errors.extend(process.stderr or ())),
        ]
        for reader in readers:
            reader.start()
        # It ends by itself, or faulthandler ends it; unless it hangs after that was told not to.
        hangs = False
        while process.poll() is None and not hangs:
            if lines and lines[-1] == ["end"]:
                try:
                    process.wait(LIMIT)
                except subprocess.TimeoutExpired:
                    hangs = True
            time.sleep(0.02)
        # Whatever it left behind may hold the pipes open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for reader in readers:
            reader.join()
        if hangs:
            lines.append(["failed", "the end", "the process does not end"])
        self.log += "".join(errors)
        return lines

    def run(self, excluded: dict[str, str]) -> None:
        begin = time.monotonic()
        names = [line[1] for line in self._talk(self._start("list", self.method)) if line[0] == "test"]
        if not names:
            self.outcomes["the list of tests"] = ("failed", "there is none")
        for name in names:
            if self.pool == "ringpool" and name in excluded:
                self.outcomes[name] = ("excluded", excluded[name])
        left = [name for name in names if name not in self.outcomes and self.only in name]
        while left:
            lines = self._talk(self._start("run", self.method, *left))
            running = "the beginning"
            for word, *rest in lines:
                if word == "start":
                    running = rest[0]
                elif word in ("passed", "failed", "skipped"):
                    self.outcomes[rest[0]] = (word, " ".join(rest[1:]))
                    running = f"what follows {rest[0]}"
            if lines and (lines[-1] == ["end"] or lines[-1][:2] == ["failed", "the end"]):
                break
            self.outcomes[running] = ("failed", f"hung or crashed; a test has {LIMIT:g} s")
            before = len(left)
            left = [name for name in left if name not in self.outcomes]
            if len(left) == before:
                break
        self.seconds = time.monotonic() - begin


def parent(pool: str, methods: list[str], only: str) -> int:
    from excluded import EXCLUDED

    version = ".".join(map(str, sys.version_info[:3]))
    runs = [Method(method, pool, only) for method in methods]
    threads = [threading.Thread(target=run.run, args=(EXCLUDED,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = 0
    for run in runs:
        counts = {"passed": 0, "failed": 0, "skipped": 0, "excluded": 0}
        for name, (outcome, text) in run.outcomes.items():
            counts[outcome] += 1
            if outcome != "passed":
                print(f"  {run.method}: {outcome} {name}: {text}")
        if counts["failed"] or not counts["passed"]:
            failed += 1
            print(run.log)
        summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        print(f"CPython {version}, {pool}, {run.method}: {summary} in {run.seconds:.0f} s", flush=True)
    return 1 if failed else 0


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        _, _, what, method, *rest = sys.argv
        # Not standard output: tests and workers may write there.
        out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        if what == "list":
            for test in pool_tests(method, False):
                out.write(f"test\t{short(test)}\n")
            out.write("end\n")
            out.flush()
        else:
            child(method, rest, out)
        return 0
    parser = argparse.ArgumentParser()
    parser.add_argument("--pool", choices=("ringpool", "multiprocessing"), default="ringpool")
    parser.add_argument("--method", choices=METHODS, action="append")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    if (
        importlib.util.find_spec("test") is None
        or importlib.util.find_spec("test._test_multiprocessing") is None
    ):
        print("this Python comes without its tests (the package `test`): they are not run")
        return 0
    return parent(options.pool, options.method or list(METHODS), options.only)


if __name__ == "__main__":
    sys.exit(main())
