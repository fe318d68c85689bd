"""Counts the words of the Python files of a directory: python wordfreq.py [DIRECTORY]

`imap_unordered` takes file names only as fast as workers read files, so that a tree of any size
needs no more memory than a small one.
"""

import re
import sys
from collections import Counter
from pathlib import Path

from ringpool import Pool

WORD = re.compile(r"[A-Za-z]{4,}")


def count(path):
    return Counter(WORD.findall(path.read_text(errors="replace").lower()))


if __name__ == "__main__":
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    total = Counter()
    with Pool() as pool:
        for words in pool.imap_unordered(count, directory.rglob("*.py")):
            total += words
    for word, times in total.most_common(5):
        print(times, word)
