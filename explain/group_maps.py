"""Maps averaged over animals, and whether two groups of animals differ in them.

    subjects, classes = subjects_of(windows)
    profiles = profile_by_activity(relative_weights(weights, windows.real), windows)
    found = compare_groups(profiles, classes, class_names=("control", "5xFAD"), simulated=False)
    print(found.sentence(ACTIVITY_BINS))

A map of one neuron means nothing for another one. What can be averaged is where in the window a frame lies, and how
active the neuron is there. The animal is what has the label: windows are averaged to one profile an animal, and only
those are compared.

Shapes: n windows, T frames, S subjects, F bins of a profile.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from ..crossval.intervals import resampled
from ..crossval.permutations import MOST, ROUNDING, SIGNIFICANT, PermutationTest, permutation_test, power_note
from ..dataset_scripts.wording import count
from .explained import ExplainedWindows
from .recording_map import mean_in_cells

# Of each class, or there is no p-value and no interval.
FEWEST = 3
BOOTSTRAP_SAMPLES = 2000
NUM_DECILES = 10
ACTIVITY_BINS = tuple(f"decile {number}" for number in range(1, NUM_DECILES + 1))


@dataclass(frozen=True, eq=False)
class GroupComparison:
    """Profiles of two groups of animals, and how they differ.

    Args:
        class_names: The two classes.
        classes: int (S,), 0 or 1.
        profiles: (S, F).
        means: (2, F), over the animals of each class; NaN in bins that some animal lacks.
        difference: (F,), class 1 minus class 0.
        standardised: (F,), the same in units of each bin's standard deviation over all animals.
        low: (F,), lower end of the 95 % interval over subjects of each difference alone, too short where animals are
            few (see `bootstrap_over_subjects`); NaN with fewer than three of a class.
        high: (F,), its upper end.
        p_values: (F,), family-wise over the bins; NaN with few animals.
        test: Of the largest difference; None with few animals.
        note: Why there is no p-value, or how small it can become.
        simulated: Whether animals are simulated; said in the sentence.
    """

    class_names: tuple[str, str]
    classes: np.ndarray
    profiles: np.ndarray
    means: np.ndarray
    difference: np.ndarray
    standardised: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_values: np.ndarray
    test: PermutationTest | None
    note: str
    simulated: bool

    @property
    def significant(self) -> np.ndarray:
        """Bins that differ with p below 0.05 over all bins; bool (F,)."""
        return self.p_values < SIGNIFICANT

    def sentence(self, bins: Sequence[str]) -> str:
        """Say where the groups differ most clearly, and whether that is more than chance.

        Args:
            bins: The name of each bin, (F,).
        """
        if np.isnan(self.difference).all():
            return f"{self._who()}: no bin is known of every animal, so none was compared."
        clearest = int(np.nanargmax(np.abs(self.standardised)))
        first = f"{self._who()}: the clearest of {count(len(bins), 'difference')} is at {bins[clearest]}"
        first += f", {self.class_names[1]} minus {self.class_names[0]} {self.difference[clearest]:+.3g}"
        if self.test is None:
            return f"{first}. {self.note}"
        how = "exact" if self.test.exact else f"{len(self.test.null)} labellings drawn"
        first += (
            f" (95 % interval {self.low[clearest]:+.3g} to {self.high[clearest]:+.3g}; p = {self.test.p_value:.2g} "
            f"over all bins, {how})"
        )
        found = int(self.significant.sum())
        verdict = f"{count(found, 'bin')} with p below {SIGNIFICANT}" if found else "no bin differs beyond chance"
        return " ".join(filter(None, [f"{first}: {verdict}.", self.note]))

    def _who(self) -> str:
        kind = "simulated " if self.simulated else ""
        sizes = [f"{np.sum(self.classes == place)} {kind}{name}" for place, name in enumerate(self.class_names)]
        return f"{sizes[0]} against {sizes[1]} animals"


def subjects_of(windows: ExplainedWindows) -> tuple[tuple[str, ...], np.ndarray]:
    """The animals that have windows, sorted, and their classes.

    Returns:
        (S,) names and int (S,) class ids.

    Raises:
        ValueError: If an animal has recordings of two classes, or no label was asked for.
    """
    subjects, places = np.unique(windows.subjects, return_inverse=True)
    classes = np.zeros(len(subjects), dtype=int)
    classes[places] = windows.classes
    odd = subjects[places[windows.classes != classes[places]]].tolist()
    if odd:
        raise ValueError(f"expected recordings of one class for each animal, got two for {odd[0]!r}; check its labels")
    return tuple(subjects.tolist()), classes


def profile_by_activity(values: np.ndarray, windows: ExplainedWindows) -> np.ndarray:
    """The mean of a map over frames of each tenth of the own trace's values, for each animal of `subjects_of`.

    Of `relative_weights` this says how much more than their share the most active frames get. Tenths are of each
    window by itself, so brighter neurons do not fill the last one; frames of equal activity are in one tenth, that of
    their middle rank, and where most frames are 0 (events) some tenths may be empty.

    Args:
        values: (n, T).
        windows: Where they are from; padding does not count.

    Returns:
        (S, 10), the least active frames first; NaN where an animal has no frame.
    """
    own, real = windows.inputs["input_values"][..., 0].cpu().numpy(), windows.real
    ranks = rankdata(np.where(real, own, np.inf), axis=1)  # padding behind all real frames
    deciles = (NUM_DECILES * (ranks - 0.5) / real.sum(1, keepdims=True)).astype(int)
    subjects, places = np.unique(windows.subjects, return_inverse=True)
    cells = (places[:, None] * NUM_DECILES + deciles)[real]
    return mean_in_cells(values[real], cells, len(subjects) * NUM_DECILES).reshape(len(subjects), NUM_DECILES)


def compare_groups(
    profiles: np.ndarray,
    classes: np.ndarray,
    *,
    class_names: Sequence[str],
    simulated: bool,
    most: int = MOST,
    seed: int = 0,
) -> GroupComparison:
    """Compare profiles of two groups of animals bin by bin, by permutation of the animals' labels.

    The statistic of a bin is the difference of the class means in units of the bin's standard deviation over all
    animals. That orders labellings as the t statistic does, and divides by nothing that a labelling changes. The
    p-value of a bin is the share of labellings with as large an absolute statistic in any bin: the chance that one or
    more bins come out where no group differs stays below α, whatever the bins have to do with each other (Nichols &
    Holmes 2002, 10.1002/hbm.1058). Every labelling is tried once where they are few; see `permutation_test`.

    It holds for animals whose labels the model has never seen. A model that was trained to tell these very animals
    apart looks at them by their labels, and its maps would have to be made anew for each labelling.

    Args:
        profiles: One for each animal, of whatever kind, (S, F); a bin that is NaN for some animal is not compared.
        classes: int (S,), 0 or 1.
        class_names: The two classes.
        simulated: Whether animals are simulated.
        most: How many labellings to try.
        seed: Of the labellings and the bootstrap.

    Raises:
        ValueError: If there are not two classes, or one has no animal.
    """
    profiles, classes = np.asarray(profiles, dtype=np.float64), np.asarray(classes)
    counts = np.bincount(classes, minlength=2)
    if len(class_names) != 2 or len(counts) != 2 or not counts.all():
        raise ValueError(
            f"expected animals of two classes to compare, got {counts.tolist()} of {', '.join(class_names)}; compare "
            "two at a time"
        )
    means = np.stack([profiles[classes == place].mean(0) for place in (0, 1)])
    units = _standardised(profiles)
    nothing = np.full(profiles.shape[1], np.nan)
    low, high, p_values, test, note = nothing, nothing, nothing, None, ""
    known = ~np.isnan(means).any(0)
    if counts.min() < FEWEST:
        note = f"Fewer than {FEWEST} animals of a class: no p-value and no interval."
    elif known.any():
        test, p_values = _tested(units, classes, known, most, seed)
        low, high = _intervals(profiles, classes, seed)
        note = power_note(classes, ("",) * len(classes), most) if test.smallest_p >= SIGNIFICANT else ""
    return GroupComparison(
        class_names=tuple(class_names),
        classes=classes,
        profiles=profiles,
        means=means,
        difference=means[1] - means[0],
        standardised=_difference(units, classes),
        low=low,
        high=high,
        p_values=p_values,
        test=test,
        note=note,
        simulated=simulated,
    )


def _standardised(profiles: np.ndarray) -> np.ndarray:
    """Each bin with mean 0 and standard deviation 1 over all animals; 0 where they are alike but for rounding."""
    spread = profiles.std(0)
    alike = spread <= ROUNDING * np.abs(profiles).max(0)
    return (profiles - profiles.mean(0)) / np.where(alike, np.inf, spread)


def _tested(
    units: np.ndarray, classes: np.ndarray, known: np.ndarray, most: int, seed: int
) -> tuple[PermutationTest, np.ndarray]:
    """The test of the largest statistic of the known bins, and the p-value of each bin against that maximum (F,)."""
    units = units[:, known]
    test = permutation_test(
        lambda labels: np.abs(_difference(units, labels)).max(), classes, ("",) * len(classes), most=most, seed=seed
    )
    statistics = np.abs(_difference(units, classes))
    as_large = test.null[:, None] >= statistics - ROUNDING * np.max(test.null, initial=test.statistic)
    p_values = np.full(len(known), np.nan)
    p_values[known] = (1 + as_large.sum(0)) / (1 + len(test.null))
    return test, p_values


def _intervals(profiles: np.ndarray, classes: np.ndarray, seed: int) -> np.ndarray:
    """Both ends of the interval of each bin's difference, (2, F), as of one number by `bootstrap_over_subjects`."""
    counts = resampled(classes, BOOTSTRAP_SAMPLES, np.random.default_rng(seed))
    shares = [counts * (classes == place) / np.sum(classes == place) for place in (0, 1)]
    return np.quantile((shares[1] - shares[0]) @ profiles, [0.025, 0.975], axis=0)


def _difference(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Mean of class 1 minus mean of class 0; (S, F) to (F,)."""
    return values[classes == 1].mean(0) - values[classes == 0].mean(0)
