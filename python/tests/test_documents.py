"""The examples, and the programs in what is to be read, run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import support

pytestmark = pytest.mark.ours

ROOT = support.HERE.parent.parent
EXAMPLES = ROOT / "examples" / "python"

if not EXAMPLES.is_dir():
    pytest.skip("the examples are not beside the tests", allow_module_level=True)


def run(path, *args):
    # A print without a buffer is several writes, which those of other processes come between.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, str(path), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=50,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_every_example_is_tested():
    text = Path(__file__).read_text()
    missing = [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in text]
    assert missing == []


@pytest.mark.parametrize("name", ["seed_apply_async.py", "seed_initializer.py"])
def test_the_five_tasks(name):
    lines = run(EXAMPLES / name)
    assert lines.count("Submitted tasks to pool") == 1
    assert [line for line in lines if line.isdigit()] == ["30", "50", "70", "90", "110"]
    assert sum(bool(re.fullmatch(r"task\d  requires  [1-4]  seconds to finish", line)) for line in lines) == 5
    started = lines.count("Initializing pool with  5  processes")
    assert started == (5 if "initializer" in name else 0)


@pytest.mark.parametrize("name", ["seed_apply_async.py", "seed_initializer.py"])
def test_they_are_programs_for_multiprocessing(tmp_path, name):
    """Only the import is ours."""
    text = (EXAMPLES / name).read_text()
    assert text.count("ringpool") == 1
    other = tmp_path / name
    other.write_text(text.replace("from ringpool import Pool", "from multiprocessing import Pool"))
    assert [line for line in run(other) if line.isdigit()] == ["30", "50", "70", "90", "110"]


def test_standardize():
    pytest.importorskip("numpy")
    assert run(EXAMPLES / "standardize.py") == ["before 5.0 3.0", "after 0.0 1.0"]


def test_faults():
    assert run(EXAMPLES / "faults.py") == [
        "1 1.0",
        "2 0.5",
        "3 was killed by SIGKILL",
        "4 0.25",
        "5 0.2",
        "done",
    ]


def test_wordfreq(tmp_path):
    (tmp_path / "a.py").write_text("pool pool pool worker")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.py").write_text("worker task pool")
    assert run(EXAMPLES / "wordfreq.py", tmp_path) == ["4 pool", "2 worker", "1 task"]


@pytest.mark.parametrize("document", ["README.md", "python/README.md"])
def test_programs_in_documents(tmp_path, document):
    """Each block of Python runs, and prints what the block behind it shows, if that is one of text."""
    text = (ROOT / document).read_text()
    blocks = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", text, re.M | re.S)
    assert blocks
    for number, (program, output) in enumerate(blocks):
        if "import numpy" in program:
            pytest.importorskip("numpy")
        path = tmp_path / f"block_{number}.py"
        path.write_text(program)
        lines = run(path)
        if output:
            assert sorted(lines) == sorted(output.splitlines())


@pytest.mark.parametrize("contestant", ["ringpool", "multiprocessing", "pipe"])
@pytest.mark.parametrize("work", ["apply", "map-one", "imap-unordered", "array-sum", "cold"])
def test_benches_run(contestant, work):
    pytest.importorskip("numpy")
    import json

    line = json.loads(run(ROOT / "bench" / "python" / "turn.py", contestant, work, "--quick")[-1])
    assert line["contestant"] == contestant and line["ns"] > 0
