"""P-values of subjects' labels: how often would a score be as good if the labels had been dealt out otherwise?

    test = permutation_test(score_of_targets, cohort.targets, cohort.strata)
    print(test.p_value, power_note(cohort.targets, cohort.strata))

The subject is what has the label, so labels are exchanged between subjects, never between windows or recordings, and
whatever looks at labels is run again for each labelling. Where labels were given out within cages, litters or dates,
they are exchanged only there.

Symbols: S subjects.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..dataset_scripts.wording import count

SIGNIFICANT = 0.05
MOST = 1000
# The same sum in another order rounds differently: statistics that differ by no more than this, relative to the
# largest, are ties.
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """A statistic among those of other labellings.

    Args:
        statistic: With the labels as they are.
        p_value: Share of labellings with a statistic at least as good, the labels as they are among them.
        exact: True if each different labelling was tried once, False if labellings were drawn.
        num_labellings: How many different labellings there are.
        null: (n,), the statistics of the other labellings.
        smallest_p: The smallest p-value within reach; see `num_groupings`.
    """

    statistic: float
    p_value: float
    exact: bool
    num_labellings: int
    null: np.ndarray
    smallest_p: float


def permutation_test(
    procedure: Callable[[np.ndarray], float],
    targets: np.ndarray,
    strata: Sequence[str],
    *,
    most: int = MOST,
    seed: int = 0,
    progress: Callable[[Sequence[np.ndarray]], Iterable[np.ndarray]] = iter,
) -> PermutationTest:
    """Compare a statistic with what the same procedure gives for other labellings of the same subjects.

    If there are at most `most` different labellings, each is tried once, and the p-value is exact. Otherwise `most`
    are drawn, and p = (1 + number at least as good) / (1 + `most`) (Phipson & Smyth 2010,
    10.2202/1544-6115.1585). Either way p ≤ α comes out with a probability of at most α where labels mean nothing.

    Args:
        procedure: From targets (S,) to the statistic, the larger the better. It runs all that depends on the targets,
            the making of folds and the choice of models included, and gives the same for the same targets.
        targets: (S,), class ids or numbers.
        strata: (S,); targets are exchanged within a stratum only.
        most: How many labellings to try besides the one that is; each costs a run of the procedure.
        seed: Of the draw.
        progress: Goes over the labellings, as `tqdm` does.

    Raises:
        ValueError: If there is not a stratum for each target, `most` is not positive, or a statistic is not finite.
    """
    if most < 1:
        raise ValueError(f"expected at least one labelling to try, got {most}")
    targets = np.asarray(targets)
    possible = num_labellings(targets, strata)
    exact = possible <= most
    others = _all_others(targets, strata) if exact else _drawn(targets, strata, most, seed)
    statistic, *null = (_finite(procedure(labelling)) for labelling in itertools.chain([targets], progress(others)))
    as_good = np.sum(np.array(null) - statistic >= -ROUNDING * np.abs([statistic, *null]).max())
    return PermutationTest(
        statistic=statistic,
        p_value=float(1 + as_good) / (1 + len(null)),
        exact=exact,
        num_labellings=possible,
        null=np.array(null),
        smallest_p=_smallest_p(targets, strata, most),
    )


def num_labellings(targets: np.ndarray, strata: Sequence[str]) -> int:
    """In how many different ways the targets can stand: a multinomial coefficient for each stratum, multiplied."""
    ways = 1
    for rows in _rows_of_strata(targets, strata):
        repeats = np.unique(np.asarray(targets)[rows], return_counts=True)[1].tolist()
        ways *= math.factorial(len(rows)) // math.prod(map(math.factorial, repeats))
    return ways


def num_groupings(targets: np.ndarray, strata: Sequence[str]) -> int:
    """How many labellings differ in more than which class is called which.

    A learner that is fitted anew has the same score when the names of two classes are exchanged everywhere. Where the
    classes are equally large (in each stratum), the result is another labelling of the same subjects, and a tie: of
    three subjects against three there are 20 labellings but 10 groupings, and no p-value below 2 / 20.

    Args:
        targets: (S,), integer class ids; numbers have no names to exchange.
        strata: (S,).
    """
    targets = np.asarray(targets)
    possible = num_labellings(targets, strata)
    if targets.dtype.kind not in "iu":
        return possible
    classes = np.unique(targets)
    sizes = [np.sum(targets[rows][:, None] == classes, axis=0) for rows in _rows_of_strata(targets, strata)]
    alike = np.unique(sizes, axis=1, return_counts=True)[1].tolist()
    return possible // math.prod(map(math.factorial, alike))


def power_note(targets: np.ndarray, strata: Sequence[str], most: int = MOST) -> str:
    """Say in a sentence how small the p-value of these subjects can become; arguments as `permutation_test`."""
    possible, groupings = num_labellings(targets, strata), num_groupings(targets, strata)
    smallest = _smallest_p(targets, strata, most)
    ways = f"more than {most} ways" if possible > most else count(possible, "way")
    ways += " within their strata" if len(set(strata)) > 1 else ""
    ways += f", which make {count(groupings, 'different grouping')}" if groupings < possible <= most else ""
    end = ": no result can be significant" if smallest >= SIGNIFICANT else ""
    return f"Labels can be dealt out to these subjects in {ways}, so p cannot be below {smallest:.2g}{end}."


def _smallest_p(targets: np.ndarray, strata: Sequence[str], most: int) -> float:
    return 1 / (1 + most if num_labellings(targets, strata) > most else num_groupings(targets, strata))


def _rows_of_strata(targets: np.ndarray, strata: Sequence[str]) -> list[np.ndarray]:
    if len(targets) != len(strata):
        raise ValueError(f"expected a stratum for each target, got {len(strata)} for {len(targets)}")
    places = np.unique(np.asarray(strata), return_inverse=True)[1]
    return [np.flatnonzero(places == stratum) for stratum in range(places.max() + 1)]


def _all_others(targets: np.ndarray, strata: Sequence[str]) -> list[np.ndarray]:
    """Every different labelling (S,) but the one that is."""
    rows = _rows_of_strata(targets, strata)
    places = np.argsort(np.concatenate(rows))
    orders = itertools.product(*(list(_different_orders(targets[members])) for members in rows))
    labellings = [np.concatenate(order)[places] for order in orders]
    return [labelling for labelling in labellings if not np.array_equal(labelling, targets)]


def _different_orders(values: np.ndarray) -> Iterator[np.ndarray]:
    """Each different order of values that may repeat, by the next in the dictionary (Knuth's Algorithm L)."""
    order = np.sort(values)
    while True:
        yield order.copy()
        rises = np.flatnonzero(order[:-1] < order[1:])
        if not len(rises):
            return
        first = rises[-1]
        second = np.flatnonzero(order > order[first])[-1]
        order[[first, second]] = order[[second, first]]
        order[first + 1 :] = order[first + 1 :][::-1].copy()


def _drawn(targets: np.ndarray, strata: Sequence[str], number: int, seed: int) -> list[np.ndarray]:
    """Labellings (S,) drawn with replacement."""
    rng, rows = np.random.default_rng(seed), _rows_of_strata(targets, strata)
    labellings = [targets.copy() for _ in range(number)]
    for labelling, members in itertools.product(labellings, rows):
        labelling[members] = rng.permutation(targets[members])
    return labellings


def _finite(statistic: float) -> float:
    if not math.isfinite(statistic):
        raise ValueError(f"expected a statistic that is defined for every labelling of the subjects, got {statistic}")
    return float(statistic)
