"""ringpool beside multiprocessing.Pool and a pool of bare pipes, in turns, in one run.

    python bench/python/run.py                 everything: some minutes
    python bench/python/run.py --quick         a tenth of the work: to see that it runs
    python bench/python/run.py --rounds 9 --only apply --only cold
    python bench/python/run.py --plot FILE     the table and the picture of a record

Needs `ringpool` installed, and numpy; matplotlib for the picture. README.md says how things are measured.
"""

import argparse
import datetime
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import turn

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
LIMIT = 300  # seconds for a turn, which takes some

#: work: (what a figure is, unit, the bar, beside whom, whether it is a ratio of medians)
ROWS = {
    "apply": ("a call by `apply`, p50", "us", 1 / 15, "multiprocessing"),
    "apply-async": ("`apply_async` and `get` of 50,000, a task", "us", 1 / 15, "multiprocessing"),
    "map-one": ("`map(chunksize=1)`, an item", "us", 1 / 15, "multiprocessing"),
    "imap-unordered": ("`imap_unordered`, an item", "us", 1 / 15, "multiprocessing"),
    "map-list": ("`map` of a list, an item", "ns", 0.6, "multiprocessing"),
    "map-range": ("`map` of a range, an item", "ns", 0.6, "multiprocessing"),
    "map-array": ("`map` of a numpy array, an item", "ns", 0.6, "multiprocessing"),
    "array-sum": ("128 MiB in, their sum out", "ms", 1 / 15, "multiprocessing"),
    "array-sum-shared": ("the same, made by `share`", "ms", 1.2, "read"),
    "array-echo": ("128 MiB in, 128 MiB out", "ms", 1 / 20, "multiprocessing"),
    "array-echo-shared": ("the same, `share` and `ringpool.empty`", "ms", None, "add"),
    "cold": ("from nothing to the first result, fork", "ms", 1.2, "multiprocessing"),
    "cold-spawn": ("the same, spawn", "ms", None, "multiprocessing"),
    "cold-forkserver": ("the same, forkserver that runs", "ms", None, "multiprocessing"),
    "import": ("the import", "ms", None, "multiprocessing"),
    "memory": ("memory that a pool adds", "MiB", "multiprocessing + 10 MiB", "multiprocessing"),
    "idle": ("a pool at rest, of a processor", "%", "0", "multiprocessing"),
}
FLOORS = {
    "pickles": ("pickling and unpickling the arguments and the result of a call", "us"),
    "loop": ("calling the function in a loop, half of the items", "ns"),
    "read": ("reading 128 MiB: `array.sum()` here", "ms"),
    "copy-read": ("copying 128 MiB, then reading them", "ms"),
    "add": ("`array + 1` here, into new memory", "ms"),
    "copy-add": ("copying, then adding into memory that is there", "ms"),
}
UNITS = {"us": 1e3, "ns": 1, "ms": 1e6, "MiB": 1 << 20, "%": 0.01}


def machine():
    """What the figures belong to."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=HERE, capture_output=True, text=True
    )
    return {
        "contestant": "machine",
        "work": "machine",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit.stdout.strip(),
        "cpus": os.cpu_count(),
        "machine": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def take(contestant, work, quick):
    command = [sys.executable, str(HERE / "turn.py"), contestant, work, *(["--quick"] if quick else [])]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return None, "hangs"
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1:] or f"exit {done.returncode}"
    return json.loads(done.stdout.splitlines()[-1]), None


def figure(line):
    for key in ("ns", "bytes", "share"):
        if key in line:
            return line[key]
    raise KeyError(line)


class Record:
    """Lines of a run, and what they say."""

    def __init__(self, lines):
        self.machine = next((line for line in lines if line["work"] == "machine"), {})
        self.found = {}
        for line in lines:
            if line["work"] != "machine":
                self.found.setdefault((line["work"], line["contestant"]), {})[line["round"]] = figure(line)

    def median(self, work, contestant):
        rounds = self.found.get((work, contestant))
        return statistics.median(rounds.values()) if rounds else None

    def ratio(self, work, contestant, other_work, other):
        """The median of the ratios of each round."""
        left, right = self.found.get((work, contestant), {}), self.found.get((other_work, other), {})
        ratios = [left[n] / right[n] for n in left if right.get(n)]
        return statistics.median(ratios) if ratios else None


def shown(value, unit):
    if value is None:
        return ""
    value /= UNITS[unit]
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 or not value else 3
    return f"{value:.{digits}f}"


def fraction(ratio):
    """1/n where that is how bars are said."""
    if ratio is None:
        return ""
    return f"1/{1 / ratio:.1f}" if ratio < 0.5 else f"{ratio:.2f}"


def verdict(record, work):
    """(ratio, bar, whether it is met), as texts."""
    _, _, bar, beside = ROWS[work]
    if work in ("memory", "idle"):
        ours, theirs = record.median(work, "ringpool"), record.median(work, "multiprocessing")
        if ours is None or theirs is None:
            return "", str(bar), ""
        if work == "idle":
            # A tenth of a thousandth is what looking at it costs.
            return "", "0", "met" if ours < 0.0005 else "missed"
        difference = (ours - theirs) / (1 << 20)
        return f"{difference:+.1f} MiB", "+10 MiB", "met" if difference <= 10 else "missed"
    other = ("read", "floor") if beside == "read" else ("add", "floor") if beside == "add" else (work, beside)
    ratio = record.ratio(work, "ringpool", *other)
    of = f" of {beside}" if beside in ("read", "add") else ""
    if ratio is None:
        return "", "", ""
    if bar is None:
        return fraction(ratio) + of, "", ""
    return fraction(ratio) + of, fraction(bar), "met" if ratio <= bar else "missed"


def table(record):
    lines = [
        "| | unit | ringpool | multiprocessing | pipes | ringpool's | bar | |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for work, (text, unit, _, _) in ROWS.items():
        figures = [shown(record.median(work, contestant), unit) for contestant in turn.ALL]
        if any(figures):
            lines.append(
                "| " + " | ".join([text, unit.replace("us", "µs"), *figures, *verdict(record, work)]) + " |"
            )
    lines += ["", "| no pool can do without | unit | |", "| --- | --- | ---: |"]
    for work, (text, unit) in FLOORS.items():
        value = record.median(work, "floor")
        if value is not None:
            lines.append(f"| {text} | {unit.replace('us', 'µs')} | {shown(value, unit)} |")
    return "\n".join(lines)


def plot(record, path):
    """How many times faster than multiprocessing.Pool, with the bars."""
    if importlib.util.find_spec("matplotlib") is None:
        print("no picture: matplotlib is not installed")
        return
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ringpool"  # the same picture for the same record
    from matplotlib import pyplot

    works = [
        work
        for work in ROWS
        if work not in ("memory", "idle", "import")
        and record.median(work, "ringpool")
        and record.median(work.removesuffix("-shared"), "multiprocessing")
    ]
    if not works:
        return
    figure_, axes = pyplot.subplots(figsize=(9, 0.42 * len(works) + 1.2))
    names = [ROWS[work][0].replace("`", "") for work in works]
    for offset, contestant, colour in ((-0.2, "ringpool", "#1b6ca8"), (0.2, "pipe", "#b0b0b0")):
        for place, work in enumerate(works):
            ratio = record.ratio(work, contestant, work.removesuffix("-shared"), "multiprocessing")
            if ratio:
                axes.barh(place + offset, 1 / ratio, 0.38, color=colour)
                axes.text(1 / ratio, place + offset, f" {1 / ratio:.1f}", va="center", fontsize=7)
    for place, work in enumerate(works):
        bar, beside = ROWS[work][2:]
        if isinstance(bar, float) and beside == "multiprocessing":
            axes.plot([1 / bar] * 2, [place - 0.45, place + 0.45], color="#c0392b", linewidth=1.5)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(works)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as multiprocessing.Pool (red: what is to be reached)", fontsize=8)
    marks = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in ("#1b6ca8", "#b0b0b0")]
    axes.legend(marks, ["ringpool", "pipes"], fontsize=8)
    figure_.tight_layout()
    figure_.savefig(path, metadata={"Date": None})
    print(f"picture: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, one round")
    parser.add_argument("--rounds", type=int)
    parser.add_argument(
        "--only", action="append", choices=turn.WORKS, metavar="WORK", help=", ".join(turn.WORKS)
    )
    parser.add_argument(
        "--output", type=Path, help="the record; by default in bench/results, if everything was run"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="only show a record")
    arguments = parser.parse_args()
    if arguments.plot:
        record = Record([json.loads(line) for line in arguments.plot.read_text().splitlines()])
        print(table(record))
        plot(record, arguments.plot.with_suffix(".svg"))
        return 0

    rounds = arguments.rounds or (1 if arguments.quick else 5)
    turns = [
        (c, work)
        for work, (all_, _, _) in turn.WORKS.items()
        if work in (arguments.only or turn.WORKS)
        for c in all_
    ]
    lines = [machine() | {"quick": arguments.quick, "rounds": rounds}]
    failed = []
    for number in range(rounds):
        # All contestants of a work one after the other, each round beginning with another one.
        order = []
        for work in dict.fromkeys(work for _, work in turns):
            those = [contestant for contestant, other in turns if other == work]
            order += [(those[(n + number) % len(those)], work) for n in range(len(those))]
        for contestant, work in order:
            line, error = take(contestant, work, arguments.quick)
            if error:
                failed.append(f"{contestant} {work}: {error}")
                print("FAILED", failed[-1], file=sys.stderr)
            else:
                lines.append(line | {"round": number})
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    record = Record(lines)
    print(table(record))
    output = arguments.output
    if output is None and not arguments.only and not arguments.quick:
        stamp = lines[0]["date"][:16].replace("T", "-").replace(":", "")
        output = RESULTS / f"python-{stamp}.jsonl"
    if output:
        output.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
        print(f"\nrecord: {output}")
        plot(record, output.with_suffix(".svg"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
