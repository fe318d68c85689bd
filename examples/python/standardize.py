"""A table of 80 MB, whose columns are brought to mean 0 and deviation 1 by several processes.

`share` puts the table into memory that all workers see, so that no item is copied on its way to them;
what they return comes back in such memory, too. Needs numpy.
"""

import numpy as np

from ringpool import Pool


def standardize(columns):
    # Writable, and private: what this changes, nobody else sees.
    columns -= columns.mean(axis=0)
    columns /= columns.std(axis=0)
    return columns


if __name__ == "__main__":
    rng = np.random.default_rng(1)
    with Pool(2) as pool:
        table = pool.share(rng.normal(5.0, 3.0, size=(500_000, 20)))
        parts = [table[:, n : n + 5] for n in range(0, 20, 5)]
        result = np.hstack(pool.map(standardize, parts, chunksize=1))
        print("before", round(float(table.mean()), 1), round(float(table.std()), 1))
        print("after", abs(round(float(result.mean()), 1)), round(float(result.std()), 1))
