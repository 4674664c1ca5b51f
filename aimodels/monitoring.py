"""Monitoring: has the input of a model in service drifted, did its answers get worse, which version answers.

Axes: N rows of the reference, M rows of the window under test, D features, T days, S shuffles.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aimodels.clustering import squared_distances


class TwoSample(NamedTuple):
    """A statistic, larger for samples that differ more, and its p-value above 0, at most 1."""

    statistic: float
    p: float


def ks_statistic(reference, window):
    """Return the largest gap between the distribution functions of `[N]` and `[M]` finite numbers."""
    own, last = _ranked(reference, window)
    n, m = int(own.sum()), int((~own).sum())
    return float(np.abs(np.cumsum(np.where(own, m, -n)))[last].max() / (n * m))


def ks_test(reference, window, ties=True):
    """Return the largest gap between two distribution functions, and its exact p-value.

    Deal the N + M values out at random, one by one in rising order: p is the probability that the
    gap reaches the one that was found. It takes N + M steps, each over up to N + 1 numbers.

    Args:
        reference: `[N]`, finite.
        window: `[M]`, finite.
        ties: True looks at the gap after all values of a tie, which is exact. False looks after
            each value, which is the same without ties, and with them gives a larger p.

    Returns:
        TwoSample: the gap from 0 to 1, and p.

    Source: Hodges 1958, <https://doi.org/10.1007/BF02589501>.
    Differs: `scipy.stats.ks_2samp(method="exact")` does as `ties=False`.
    """
    own, last = _ranked(reference, window)
    n, m = int(own.sum()), int((~own).sum())
    gaps = np.abs(np.cumsum(np.where(own, m, -n)))  # whole numbers: n m times the gap
    reached = int(gaps[last].max())
    looked = last if ties else np.ones(n + m, bool)
    of_reference = np.arange(n + 1)
    chance, p = np.zeros(n + 1), 0.0  # of each number of reference values so far, gap not reached
    chance[0] = 1.0
    for step in range(n + m):
        left = n + m - step
        up = chance * (n - of_reference) / left
        chance *= np.maximum(m - (step - of_reference), 0) / left
        chance[1:] += up[:-1]
        if looked[step]:
            out = np.abs(of_reference * m - (step + 1 - of_reference) * n) >= reached
            p += chance[out].sum()
            chance[out] = 0.0
    return TwoSample(reached / (n * m), float(min(p, 1.0)))


def kolmogorov(z):
    """Return the limit, for large samples, of the p-value of the gap z / √(N M / (N + M)).

    Args:
        z: numbers from 0.

    Returns:
        2 Σ (-1)^(k - 1) exp(-2 k² z²) over k from 1, shaped as z, from 0 to 1.

    Source: Smirnov 1948, <https://doi.org/10.1214/aoms/1177730256>.
    """
    z = np.asarray(z, float)
    if not np.all(z >= 0):
        raise ValueError(f"z holds {z.ravel()[~(z.ravel() >= 0)][0]}; allowed are numbers from 0")
    k = np.arange(1, 9)
    high, low = np.maximum(z, 0.5)[..., None], np.clip(z, 0.05, 0.5)[..., None]
    tail = 2 * ((-1.0) ** (k - 1) * np.exp(-2 * (k * high) ** 2)).sum(axis=-1)
    # Towards 0 this series needs ever more terms. Another one, for 1 - p, then needs few.
    body = np.exp(-((2 * k - 1) ** 2) * np.pi**2 / (8 * low**2)) * np.sqrt(2 * np.pi) / low
    return np.where(z < 0.5, 1 - body.sum(axis=-1), tail)


def psi(reference, window, bins=10):
    """Return the population stability index of a window.

    Bins hold about equal shares of the reference; equal values fall into the same bin. A half is
    added to each count, so that an empty bin does not make the index infinite.

    Args:
        reference: `[N]`, finite, not constant.
        window: `[M]`, finite.
        bins: from 2 to N. Where values repeat, fewer may be left.

    Returns:
        Σ (q - r) ln(q / r) over bins, from 0; r and q are the shares of reference and window. For
        samples of one distribution about (1/N + 1/M) times a χ² with one degree less than bins.

    Source: Potgieter et al. 2023, <https://arxiv.org/abs/2307.11878>.
    """
    reference, window = _sample("reference", reference), _sample("window", window)
    if bins != int(bins) or not 2 <= bins <= len(reference):
        raise ValueError(
            f"bins is {bins}; allowed are 2 to {len(reference)}, the values of reference"
        )
    if reference.min() == reference.max():
        raise ValueError(
            f"reference holds only {reference[0]}; allowed are two different values or more"
        )
    edges = np.unique(np.quantile(reference, np.arange(1, bins) / bins, method="lower"))
    edges = edges[edges < reference.max()]
    if len(edges) == 0:  # nearly all values are the largest one
        edges = reference[reference < reference.max()].max(keepdims=True)
    counts = [
        np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) + 0.5
        for values in (reference, window)
    ]
    r, q = (count / count.sum() for count in counts)
    return float(np.sum((q - r) * np.log(q / r)))


def median_width(x):
    """Return the median distance between two different rows of `x` `[N, D]`: a kernel's usual width."""
    distances = np.sqrt(squared_distances(x, x))
    if len(distances) < 2 or distances.max() == 0:
        raise ValueError(
            f"x has {len(distances)} rows, all equal; allowed are two or more that differ"
        )
    width = np.median(distances[np.triu_indices(len(distances), 1)])
    return float(width or distances[distances > 0].min())


def mmd_squared(reference, window, width):
    """Return the squared maximum mean discrepancy, unbiased: on average 0 without drift.

    Args:
        reference: `[N, D]`, N from 2.
        window: `[M, D]`, M from 2.
        width: ℓ of the kernel exp(-‖a - b‖² / 2ℓ²), above 0.

    Returns:
        a number below 2; it may be below 0.

    Source: Gretton et al. 2012, equation 3, <https://jmlr.org/papers/v13/gretton12a.html>.
    """
    pooled, n = _pooled(reference, window)
    own = np.arange(len(pooled)) < n
    return float(_discrepancies(_kernel(pooled, width), own[None])[0])


def mmd_test(reference, window, rng, width=None, *, block=1, shuffles=999):
    """Return the squared MMD of two samples, and its p-value by permutation.

    Args:
        reference: `[N, D]`.
        window: `[M, D]`.
        rng: a `numpy.random.Generator`.
        width: of the kernel; None takes the median distance of all rows.
        block: how many neighbours are moved together; it divides N and M.
        shuffles: S.
    """
    pooled, n = _pooled(reference, window)
    kernel = _kernel(pooled, median_width(pooled) if width is None else width)
    dealt = _deal(n, len(pooled) - n, rng, block, shuffles)
    return _compare(_discrepancies(kernel, dealt))


def ks_block_test(reference, window, rng, block, shuffles=999):
    """Return the gap of `ks_test`, with a p-value that keeps neighbours together.

    Args:
        reference: `[N]`, in the order of time.
        window: `[M]`, likewise.
        rng: a `numpy.random.Generator`.
        block: how many neighbours are moved together; it divides N and M. Days that far apart
            should hardly depend on each other. 1 takes all orders alike, as `ks_test` does.
        shuffles: S.

    Returns:
        TwoSample: p is at least 1 / (S + 1).
    """
    reference, window = _sample("reference", reference), _sample("window", window)
    pooled = np.concatenate([reference, window])
    order = pooled.argsort(kind="stable")
    last = np.append(np.diff(pooled[order]) > 0, True)
    n, m = len(reference), len(window)
    dealt = _deal(n, m, rng, block, shuffles)[:, order]
    gaps = np.abs(np.cumsum(np.where(dealt, m, -n), axis=1))[:, last].max(axis=1)
    return _compare(gaps / (n * m))


def cusum(values, mean, deviation, slack=0.5):
    """Return sums that grow when values stay above their mean: Page's one-sided scheme.

    Args:
        values: `[T]`, finite, in the order of time.
        mean: what they are on average without a change.
        deviation: their standard deviation without a change, above 0.
        slack: how many deviations above the mean are let pass; 0 or more. A rise of twice as much
            is found soonest.

    Returns:
        `[T]`: s = max(0, s before + (value - mean) / deviation - slack), from s = 0.

    Source: Page 1954, <https://doi.org/10.1093/biomet/41.1-2.100>.
    """
    values = _sample("values", values)
    if not (np.isfinite(mean) and 0 < deviation < np.inf and 0 <= slack < np.inf):
        raise ValueError(
            f"mean, deviation, slack are {mean}, {deviation}, {slack}; "
            "allowed are finite numbers, the second above 0, the third from 0"
        )
    walk = np.append(0.0, np.cumsum((values - mean) / deviation - slack))
    return (walk - np.minimum.accumulate(walk))[1:]


def gain(old, new, block):
    """Return how much smaller the losses of a candidate are, and the standard error of that.

    Args:
        old: `[T]`, losses of the model in service on held-back days, in the order of time.
        new: `[T]`, of the candidate on the same days.
        block: neighbours that are averaged first, since they depend on each other; T holds at
            least two blocks, an incomplete one at the end is left out of the error.
    """
    old, new = _sample("old", old), _sample("new", new)
    if len(old) != len(new):
        raise ValueError(f"new has {len(new)} losses; allowed are {len(old)}, as many as old")
    if block != int(block) or not 1 <= block <= len(old) // 2:
        raise ValueError(f"block is {block}; allowed are 1 to {len(old) // 2}, half of the losses")
    difference, blocks = old - new, len(old) // block
    averages = difference[: blocks * block].reshape(blocks, block).mean(axis=1)
    return float(difference.mean()), float(averages.std(ddof=1) / np.sqrt(blocks))


class Registry:
    """Versions of a model in a folder, none ever overwritten, and which of them is in service.

    Each file appears whole or not at all, also if the program is stopped.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder):
        """Keep the folder."""
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def versions(self):
        """Return the numbers of all versions, rising."""
        return sorted(int(path.stem) for path in self.folder.glob("[0-9]*.npz"))

    def add(self, **arrays):
        """Keep arrays by name as a new version, not yet in service; return its number, from 1."""
        if not arrays:
            raise ValueError("arrays is empty; allowed is at least one array")
        for name, values in arrays.items():
            if not np.all(np.isfinite(values)):
                raise ValueError(f"{name} holds NaN or infinity; allowed are finite numbers")
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
            number = max(self.versions(), default=0) + 1
            while True:
                try:  # a link, unlike a renamed file, never replaces what is there
                    os.link(file.name, self.folder / f"{number:06}.npz")
                    return number
                except FileExistsError:
                    number += 1

    def load(self, version):
        """Return the arrays of a version by name."""
        self._known(version)
        with np.load(self.folder / f"{version:06}.npz", allow_pickle=False) as file:
            return dict(file)

    def history(self):
        """Return the numbers of the versions promoted and not rolled back; the last one serves."""
        path = self.folder / "serving.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else []

    def promote(self, version):
        """Put a version into service."""
        self._known(version)
        self._serve([*self.history(), int(version)])

    def roll_back(self):
        """Put the version before back into service, and return its number; no file is removed."""
        history = self.history()
        if len(history) < 2:
            raise ValueError(f"history is {history}; allowed are two versions or more")
        self._serve(history[:-1])
        return history[-2]

    def _known(self, version):
        if version not in self.versions():
            raise ValueError(f"version is {version!r}; allowed are {self.versions()}")

    def _serve(self, history):
        path = self.folder / "serving.part"
        path.write_text(json.dumps(history), "utf-8")
        os.replace(path, self.folder / "serving.json")


def _compare(statistics):
    """Return the first statistic, and the share of all that reach it, itself among them."""
    close = 1e-12 * np.abs(statistics).max()  # equal deals may differ by rounding
    return TwoSample(float(statistics[0]), float(np.mean(statistics >= statistics[0] - close)))


def _deal(n, m, rng, block, shuffles):
    """Return who is called reference, `[S + 1, N + M]`: first as it is, then blocks at random."""
    if block != int(block) or block < 1 or n % block or m % block:
        raise ValueError(f"block is {block}; allowed are divisors of both {n} and {m} rows")
    if shuffles != int(shuffles) or shuffles < 1:
        raise ValueError(f"shuffles is {shuffles}; allowed is 1 or more")
    own = np.arange((n + m) // block) < n // block
    dealt = np.tile(own, (int(shuffles) + 1, 1))
    dealt[1:] = rng.permuted(dealt[1:], axis=1)
    return np.repeat(dealt, block, axis=1)


def _discrepancies(kernel, own):
    """Return the squared MMD for each row of `own` `[S, N + M]`, True for the reference."""
    n, m = int(own[0].sum()), int((~own[0]).sum())
    a = own.astype(float)
    inside = np.einsum("si,si->s", a @ kernel, a)
    reached = a @ kernel.sum(axis=1)
    across = reached - inside
    other = kernel.sum() - inside - 2 * across
    return (inside - n) / (n * (n - 1)) + (other - m) / (m * (m - 1)) - 2 * across / (n * m)


def _kernel(x, width):
    if not 0 < width < np.inf:
        raise ValueError(f"width is {width}; allowed are numbers above 0")
    return np.exp(-squared_distances(x, x) / (2 * width**2))


def _pooled(reference, window):
    """Return the rows of both tables, and N."""
    reference, window = np.asarray(reference), np.asarray(window)
    for name, table in (("reference", reference), ("window", window)):
        if table.ndim != 2 or len(table) < 2 or table.shape[1:] != reference.shape[1:]:
            wanted = "[N, D]" if name == "reference" else f"[M, {reference.shape[-1]}]"
            raise ValueError(
                f"{name} has shape {table.shape}; allowed is {wanted}, two rows or more"
            )
        if table.dtype.kind not in "fiub" or not np.all(np.isfinite(table)):
            raise ValueError(f"{name} holds other than finite numbers; allowed are finite numbers")
    return np.concatenate([reference, window]).astype(float), len(reference)


def _ranked(reference, window):
    """Return for both samples in rising order: is it the reference's, does a tie end here?"""
    reference, window = _sample("reference", reference), _sample("window", window)
    pooled = np.concatenate([reference, window])
    order = pooled.argsort(kind="stable")
    ranked = pooled[order]
    return order < len(reference), np.append(np.diff(ranked) > 0, True)


def _sample(name, values):
    """Return `values` as float `[any]`, or say what is wrong."""
    values = np.asarray(values)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{name} has shape {values.shape}; allowed is one axis, not empty")
    if values.dtype.kind not in "fiub" or not np.all(np.isfinite(values)):
        raise ValueError(f"{name} holds other than finite numbers; allowed are finite numbers")
    return values.astype(float)
