"""What may tell groups apart without any biology: date, frame rate, length, noise, how neurons were imaged.

    for row in confound_table(recordings, cohort):
        print(row.name, row.separation, row.p_value, row.suspicious)

A model can learn any of these instead of what it was meant to. Some carry biology as well: more active neurons have
larger amplitudes and, relative to them, less noise. So a suspicious one is a question to answer, not an artefact.

Symbols: R recordings, S subjects.
"""

import datetime
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from ..dataset_scripts.quality import known_median, noise_levels
from ..dataset_scripts.recording import Recording
from .cohort import Cohort
from .permutations import SIGNIFICANT, permutation_test

# Labels that may hold a date; the session's id is asked last.
DATE_LABELS = ("date", "imaging_date", "recording_date", "session_date", "session")
DATE, DAY = "recording date", "recording day"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Confound:
    """How well one property of the recordings, alone, puts the subjects in the order of their targets.

    Args:
        name: The property.
        unit: Of `typical`; empty for dates, counts and kinds.
        typical: For each class, or under "all" with a continuous target: the median over subjects, NaN where none is
            known; a date in ISO format; of kinds the most frequent.
        separation: From 0.5, tells nothing, to 1, tells all; see `separation`.
        p_value: Of the separation, by permutation of the subjects' targets within strata.
        exact: Whether every labelling was tried.
        adjusted_p: The same, adjusted for the length of the table (Holm 1979).
        suspicious: Whether the unadjusted p-value is below 0.05, or nothing but few subjects keeps it from being so.
    """

    name: str
    unit: str
    typical: Mapping[str, float | str]
    separation: float
    p_value: float
    exact: bool
    adjusted_p: float
    suspicious: bool


@dataclass(frozen=True, eq=False)
class _Property:
    """A property of the subjects: numbers (S,), NaN where not known, or kinds (S,), text."""

    name: str
    unit: str
    values: np.ndarray

    @property
    def is_kind(self) -> bool:
        return self.values.dtype.kind == "U"

    def says_something(self) -> bool:
        """Not where all are alike, nor where kinds are so many that they would name single subjects."""
        different = len(np.unique(self.values))
        return different > 1 and not (self.is_kind and different > len(self.values) / 2)

    def ordered(self) -> np.ndarray:
        """Ranks of numbers, unknown ones below all; numbers in place of kinds, int."""
        if self.is_kind:
            return np.unique(self.values, return_inverse=True)[1]
        return rankdata(np.where(np.isnan(self.values), -np.inf, self.values))

    def typical(self, members: np.ndarray) -> float | str:
        """Of some of the subjects, bool (S,)."""
        if self.is_kind:
            return Counter(self.values[members].tolist()).most_common(1)[0][0]
        median = known_median(self.values[members])
        if self.name != DATE:
            return median
        return UNKNOWN if np.isnan(median) else datetime.date.fromordinal(int(median)).isoformat()


def confound_table(recordings: Sequence[Recording], cohort: Cohort, *, seed: int = 0) -> list[Confound]:
    """Say of each property of the recordings how well it alone separates the subjects.

    Numbers are averaged over a subject's recordings. Properties in which all subjects are alike are left out.

    Args:
        recordings: Those of the cohort, in its order; accepted neurons are measured.
        cohort: The subjects and their targets.
        seed: Of the labellings drawn, where they are too many to try all.

    Raises:
        ValueError: If the recordings are not those of the cohort, or one has no accepted neuron.
    """
    if tuple(recording.recording_id for recording in recordings) != cohort.recording_ids:
        raise ValueError("expected the recordings of the cohort, in its order, got others")
    properties = [*_numbers(recordings, cohort), *_kinds(recordings, cohort)]
    rows = [_confound(each, cohort, seed) for each in properties if each.says_something()]
    adjusted = holm(np.array([row.p_value for row in rows])).tolist()
    return [replace(row, adjusted_p=p_value) for row, p_value in zip(rows, adjusted, strict=True)]


def _confound(measured: _Property, cohort: Cohort, seed: int) -> Confound:
    values = measured.ordered()
    test = permutation_test(
        lambda targets: separation(values, targets, len(cohort.class_names)), cohort.targets, cohort.strata, seed=seed
    )
    return Confound(
        name=measured.name,
        unit=measured.unit,
        typical={name: measured.typical(members) for name, members in cohort.groups.items()},
        separation=test.statistic,
        p_value=test.p_value,
        exact=test.exact,
        adjusted_p=float("nan"),
        suspicious=test.p_value < SIGNIFICANT or test.statistic == 1,
    )


def separation(values: np.ndarray, targets: np.ndarray, num_classes: int) -> float:
    """How well values put subjects in the order of their targets, whichever way round: concordance, 0.5 to 1.

    The share of pairs of subjects with different targets that are in the right order, in the better of the two
    orders: of two classes the larger of AUC and 1 − AUC, of a continuous target the same of the concordance index. Of
    more classes it is the mean over pairs of classes. Kinds are put in the order of their mean target, the best of
    all their orders for two classes. What is best is chosen on these subjects, so chance gives more than 0.5.

    Args:
        values: (S,), numbers; or int, kinds from 0.
        targets: (S,), class ids or numbers.
        num_classes: 0 for a continuous target.
    """
    if not num_classes:
        return _concordance(values, targets)
    pairs = itertools.combinations(range(num_classes), 2)
    both = [(np.isin(targets, pair), pair[1]) for pair in pairs]
    return float(np.mean([_concordance(values[rows], 1.0 * (targets[rows] == second)) for rows, second in both]))


def _concordance(values: np.ndarray, targets: np.ndarray) -> float:
    if values.dtype.kind == "i":
        counts = np.maximum(np.bincount(values), 1)
        values = (np.bincount(values, targets) / counts)[values]
    # As `ranking` counts pairs, but in a single fold and ten times as fast, for it is asked of every labelling.
    order = np.sign(targets[:, None] - targets)
    excess = np.sum(order * np.sign(values[:, None] - values)) / np.abs(order).sum()
    return float(1 + abs(excess)) / 2


def holm(p_values: np.ndarray) -> np.ndarray:
    """P-values adjusted for their number, so that one below α is by chance among them with a probability of at most α.

    Holm 1979, www.jstor.org/stable/4615733.
    """
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    factors = np.arange(len(p_values), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1)
    return adjusted


def recording_date(recording: Recording) -> datetime.date | None:
    """The date in ISO format among the labels `DATE_LABELS`, or that is the session's id."""
    texts = [recording.labels.get(name) for name in DATE_LABELS]
    for text in [*texts, recording.session_id]:
        try:
            return datetime.datetime.fromisoformat(str(text)).date()
        except ValueError:
            continue
    return None


def _numbers(recordings: Sequence[Recording], cohort: Cohort) -> list[_Property]:
    absolute = all(recording.trace_kind == "dff" for recording in recordings)
    in_um = any(recording.coordinate_unit == "um" for recording in recordings)
    units = {
        DATE: "",
        "frame rate": "Hz",
        "recording length": "s",
        "frames": "",
        "neurons": "",
        "noise level": "% ΔF/F per √Hz" if absolute else "% of SD per √Hz",
        "amplitude scale": "units of the traces",
        "distance to the nearest neuron": "µm" if in_um else "px",
    }
    table = np.array([_measure(recording, absolute, in_um) for recording in recordings])
    members = [cohort.recording_subjects == subject for subject in range(len(cohort.subjects))]
    means = np.array([[_known_mean(column[rows]) for rows in members] for column in table.T])
    return [
        _Property(name, unit, column if name == DATE else _four_digits(column))
        for (name, unit), column in zip(units.items(), means, strict=True)
    ]


def _measure(recording: Recording, absolute_noise: bool, in_um: bool) -> list[float]:
    """One recording's numbers, in the order of their names in `_numbers`."""
    recording = recording.accepted_neurons()
    date = recording_date(recording)
    traces = np.where(np.isfinite(recording.traces), recording.traces, np.nan)
    traces = traces[~np.isnan(traces).all(axis=1)]
    noise = noise_levels(traces, recording.sampling_rate, recording.segment_starts, relative=not absolute_noise)
    right_unit = recording.coordinate_unit == ("um" if in_um else "px")
    return [
        float("nan") if date is None else date.toordinal(),
        recording.sampling_rate,
        recording.num_frames / recording.sampling_rate,
        recording.num_frames,
        recording.num_neurons,
        known_median(noise),
        known_median(np.nanmax(traces, axis=1) - np.nanmin(traces, axis=1)),
        _nearest(recording.centroids[recording.positioned]) if right_unit else float("nan"),
    ]


def _nearest(centroids: np.ndarray) -> float:
    """The median distance from a neuron to the nearest other one; NaN of a single neuron."""
    if len(centroids) < 2:
        return float("nan")
    return float(np.median(cKDTree(centroids).query(centroids, k=2)[0][:, 1]))


def _known_mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _four_digits(values: np.ndarray) -> np.ndarray:
    """No model sees less: two clocks' measures of one frame rate are alike, and so are means of equal numbers."""
    return np.array([float(f"{value:.4g}") for value in values])


def _kinds(recordings: Sequence[Recording], cohort: Cohort) -> list[_Property]:
    """Kinds by subject; one whose recordings differ is of a kind of its own, that of all of these together."""
    words = {
        "trace kind": [recording.trace_kind for recording in recordings],
        "modality": [recording.modality for recording in recordings],
        "indicator": [recording.indicator for recording in recordings],
        "unit of positions": [recording.coordinate_unit for recording in recordings],
        DAY: [recording_date(recording) for recording in recordings],
    }
    if len(set(words[DAY])) < 3:
        del words[DAY]  # two days are no more than an early and a late one
    return [_Property(name, "", _joined(column, cohort)) for name, column in words.items()]


def _joined(words: Sequence[object], cohort: Cohort) -> np.ndarray:
    found = [set() for _ in cohort.subjects]
    for word, subject in zip(words, cohort.recording_subjects, strict=True):
        found[subject].add(UNKNOWN if word is None else str(word))
    return np.array([", ".join(sorted(kinds)) for kinds in found])
