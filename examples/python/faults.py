"""A worker that is killed costs the item that it ran, and that one may be tried again."""

import os
import signal
import sys
import tempfile

from ringpool import Pool, WorkerDied


def reciprocal(n):
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
    return 1 / n


def second_time_lucky(path):
    if not os.path.exists(path):
        open(path, "w").close()
        os._exit(1)
    return "done"


if __name__ == "__main__":
    with Pool(2) as pool, tempfile.TemporaryDirectory() as directory:
        values = pool.imap(reciprocal, [1, 2, 3, 4, 5])
        for n in range(1, 6):
            try:
                print(n, next(values))
            except WorkerDied as error:
                print(n, "was killed by", error.signal.name)
            except ZeroDivisionError as error:
                sys.exit(f"a wrong item: {error}")
        print(pool.apply(second_time_lucky, (os.path.join(directory, "tried"),), retries=1))
