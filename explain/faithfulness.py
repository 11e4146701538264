"""Whether an explanation is true: does the model need the frames that it calls important?

    trial = open_trial(model, windows)
    verdict = judge(trial, integrated_gradients)
    print(verdict.stamp)

Deletion hides the most important frames first and follows the log-odds of the class that the model gives the unharmed
window; insertion starts with every frame hidden and shows the most important first (Petsiuk et al. 2018,
arXiv:1806.07421). The area between a control's curve and the explanation's, divided by the range of shares, is how
many log-odds more the explanation takes, or brings, on average.

Deletion decides, against each of four controls:

- frames in random order. Alone it is too easy for smooth maps: lines across single hidden frames lose nothing.
- the same map turned in time, another way in each window: as smooth, as concentrated, but elsewhere.
- the same method on a model with random weights: what it says whatever was learnt.
- the same method on a head that was trained on shuffled labels: what it says whatever the labels mean.

Maps must also differ from those of the last two. Insertion is shown, but does not decide: a window with most frames
hidden is nothing that the encoder was trained on, and where traces are smooth, lines between a few scattered frames
draw most of them again, which a true map that points to one place need not beat.

One random model may agree with the real one throughout, or say its opposite. So several take turns, each with some of
the windows. The subject is the unit: windows, mean over a subject, interval over subjects.

Shapes: n windows, T frames, S shares.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from ..dataset_scripts.wording import count
from ..modeling_neurt import NeurtForSequenceClassification
from .controls import ControlModels, Groups, control_models, tells_groups
from .curves import (
    FEWEST_SUBJECTS,
    SHARES,
    Estimate,
    area_between,
    deletion_curve,
    importance_ranks,
    insertion_curve,
    over_subjects,
    random_ranks,
    turned,
)
from .explained import ExplainedWindows, hide, log_odds, log_odds_of, logits_of

# (model, windows, targets (n,)) to the importance (n, T) of each frame for the log-odds of the targets.
Method = Callable[[NeurtForSequenceClassification, ExplainedWindows, np.ndarray], np.ndarray]
Progress = Callable[[Iterable], Iterable]

RANDOM_DRAWS = 3
# Spearman. Maps of a model and of a control that are more alike than this are the same map, by and large.
MOST_ALIKE = 0.5

EXPLANATION = "explanation"
RANDOM, TURNED, RANDOM_WEIGHTS, SHUFFLED_LABELS = "random order", "turned in time", "random weights", "shuffled labels"
RANDOM_NEURONS, OTHER_SEEDS = "random neurons", "other seeds"
AS_GOOD = {
    RANDOM: "hiding random frames may do as much",
    RANDOM_NEURONS: "removing random neurons may do as much",
    TURNED: "the same map turned in time may do as much",
    RANDOM_WEIGHTS: "the same method on random weights may do as much",
    SHUFFLED_LABELS: "the same method on shuffled labels may do as much",
}
ALIKE = {
    RANDOM_WEIGHTS: "random weights give much the same map",
    SHUFFLED_LABELS: "shuffled labels give much the same map",
}
NO_GROUPS = "the model is not shown to tell the groups apart"


@dataclass(frozen=True)
class Verdict:
    """Whether an explanation may be believed, and why.

    Args:
        tested: False if nothing speaks against it, but too little is known: fewer than three subjects, or no two
            classes of them.
        faithful: Whether it passed.
        reasons: Everything that speaks against it, in words; empty if it passed.
        areas: Deletion: by how many log-odds the explanation is better than each control.
        insertion_areas: The same for insertion, which does not decide.
        alike: Mean Spearman correlation of maps: with those of random weights and of shuffled labels, which should be
            low, and between heads of other seeds, which says how stable the explanation is.
        shares: The shares of frames or neurons at which curves are known.
        deletion: Log-odds at each share, of the explanation and of each control.
        insertion: The same for insertion.
        unit: What is hidden: "frames" or "neurons".
        num_windows: Windows, or recordings, that were explained.
        num_subjects: Their animals.
    """

    tested: bool
    faithful: bool
    reasons: tuple[str, ...]
    areas: Mapping[str, Estimate]
    insertion_areas: Mapping[str, Estimate]
    alike: Mapping[str, Estimate]
    shares: tuple[float, ...]
    deletion: Mapping[str, tuple[Estimate, ...]]
    insertion: Mapping[str, tuple[Estimate, ...]]
    unit: str
    num_windows: int
    num_subjects: int

    @property
    def stamp(self) -> str:
        """What stands on a figure of the explanation."""
        if self.faithful:
            return "faithful"
        return f"{'not faithful' if self.tested else 'not tested'}: {self.reasons[0]}"

    @property
    def sentence(self) -> str:
        """The stamp, and how clearly the explanation passed or failed."""
        closest = min(self.areas, key=lambda name: self.areas[name].mean)
        return (
            f"{self.stamp}. Hiding the {self.unit} that it calls most important takes "
            f"{self.areas[closest]} log-odds more than the best of its controls, {closest}; "
            f"{count(self.num_subjects, 'animal')}."
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**dataclasses.asdict(self), "stamp": self.stamp, "sentence": self.sentence}


@dataclass(frozen=True, eq=False)
class Trial:
    """What the explanations of one model are tried with; made once for all methods.

    Args:
        model: The classifier.
        windows: The windows that are explained.
        targets: int (n,), the class that the model gives each of them.
        groups: Whether there is anything to explain; None where there are no two classes of animals.
        controls: Models that a method is asked about as well.
        visible: Log-odds of the targets with nothing hidden, (n,).
        hidden: The same with every frame hidden.
        random: Deletion and insertion curves of frames in random order, (n, S) each.
        seed: Of all draws.
    """

    model: NeurtForSequenceClassification
    windows: ExplainedWindows
    targets: np.ndarray
    groups: Groups | None
    controls: ControlModels
    visible: np.ndarray
    hidden: np.ndarray
    random: tuple[np.ndarray, np.ndarray]
    seed: int


def open_trial(
    model: NeurtForSequenceClassification,
    windows: ExplainedWindows,
    *,
    seed: int = 0,
    progress: Progress = iter,
) -> Trial:
    """Make what explanations of a model are tried with.

    The cost is that of `tells_groups` (19 passes over the windows), of training some heads, and of 36 passes for
    frames in random order.

    Args:
        model: A classifier, in evaluation mode.
        windows: A sample of windows, of animals that the model was not trained on.
        seed: Of all draws.
        progress: Goes over the random models, as `tqdm` does.

    Raises:
        ValueError: If an animal is of two classes.
    """
    logits = torch.as_tensor(logits_of(model, windows.inputs))
    targets = logits.argmax(1)
    visible = log_odds(logits, targets).numpy()
    targets = targets.numpy()
    hidden = log_odds_of(model, hide(windows.inputs, windows.real), targets)
    ranks = [random_ranks(windows.real, seed=seed + draw) for draw in range(RANDOM_DRAWS)]
    return Trial(
        model=model,
        windows=windows,
        targets=targets,
        groups=tells_groups(model, windows, seed=seed, progress=progress),
        controls=control_models(model, windows, seed=seed),
        visible=visible,
        hidden=hidden,
        random=(
            np.mean([deletion_curve(model, windows, targets, each, visible) for each in ranks], axis=0),
            np.mean([insertion_curve(model, windows, targets, each, hidden) for each in ranks], axis=0),
        ),
        seed=seed,
    )


def judge(trial: Trial, method: Method, progress: Progress = iter) -> Verdict:
    """Try an explanation of the windows of a trial.

    The cost is four maps of each window and 36 passes over the windows.

    Args:
        trial: As of `open_trial`.
        method: What is tried.
        progress: Goes over the curves, as `tqdm` does.

    Raises:
        ValueError: If the method does not give a finite importance of each frame.
    """
    real, subjects = trial.windows.real, trial.windows.subjects
    maps = method(trial.model, trial.windows, trial.targets)
    ranks = {EXPLANATION: importance_ranks(maps, real)}
    ranks[TURNED] = importance_ranks(turned(maps, real, seed=trial.seed), real)
    others = _maps_of_controls(trial, method)
    ranks |= {name: importance_ranks(other, real) for name, other in others.items()}
    deletion, insertion = {RANDOM: trial.random[0]}, {RANDOM: trial.random[1]}
    known = trial.model, trial.windows, trial.targets
    for name in progress(list(ranks)):
        deletion[name] = deletion_curve(*known, ranks[name], trial.visible)
        if name not in others:
            insertion[name] = insertion_curve(*known, ranks[name], trial.hidden)
    alike = {name: mean_correlation(rank_correlation(maps, other, real), subjects) for name, other in others.items()}
    if trial.controls.retrained:
        alike[OTHER_SEEDS] = _stability(trial, method)
    return make_verdict(deletion, insertion, alike, subjects, groups=trial.groups, unit="frames")


def make_verdict(
    deletion: Mapping[str, np.ndarray],
    insertion: Mapping[str, np.ndarray],
    alike: Mapping[str, Estimate],
    subjects: np.ndarray,
    *,
    groups: Groups | None,
    unit: str,
) -> Verdict:
    """Decide by the curves of an explanation and of its controls.

    Args:
        deletion: Curves (n, S) of `EXPLANATION` and of each control.
        insertion: The same; or none.
        alike: See `Verdict`.
        subjects: The animal of each curve, (n,).
        groups: As of `Trial`.
        unit: What is hidden, in the plural.
    """
    best, shown = deletion[EXPLANATION], insertion.get(EXPLANATION)
    areas = {
        name: over_subjects(area_between(best, curve), subjects)
        for name, curve in deletion.items()
        if name != EXPLANATION
    }
    insertion_areas = {
        name: over_subjects(area_between(curve, shown), subjects)
        for name, curve in insertion.items()
        if name != EXPLANATION
    }
    against = _against(areas, alike, groups)
    unknown = _unknown(subjects, groups)
    return Verdict(
        tested=bool(against) or not unknown,
        faithful=not against and not unknown,
        reasons=(*against, *unknown),
        areas=areas,
        insertion_areas=insertion_areas,
        alike=alike,
        shares=tuple(SHARES.tolist()),
        deletion={name: _points(curve, subjects) for name, curve in deletion.items()},
        insertion={name: _points(curve, subjects) for name, curve in insertion.items()},
        unit=unit,
        num_windows=len(subjects),
        num_subjects=len(np.unique(subjects)),
    )


def rank_correlation(first: np.ndarray, second: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Spearman correlation of two maps of each window.

    Args:
        first: (n, T).
        second: (n, T).
        real: Which frames are no padding; bool (n, T).

    Returns:
        (n,); 0 where a map is constant and puts nothing in any order.
    """
    return np.sum(_unit_ranks(first, real) * _unit_ranks(second, real), axis=1)


def _unit_ranks(maps: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Ranks of the real frames, of mean 0 and length 1 in each window; 0 at padding, and where all are equal."""
    ranks = rankdata(np.where(real, maps, np.inf), axis=1)  # padding behind all real frames
    centred = np.where(real, ranks - (real.sum(1, keepdims=True) + 1) / 2, 0)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)


def _maps_of_controls(trial: Trial, method: Method) -> dict[str, np.ndarray]:
    """What a method says of the same windows and classes where there is nothing that it could know."""
    models = {RANDOM_WEIGHTS: trial.controls.randomised, SHUFFLED_LABELS: trial.controls.relabelled}
    known = trial.windows, trial.targets
    return {name: _in_turn(method, some, *known, seed=trial.seed) for name, some in models.items() if some}


def _stability(trial: Trial, method: Method) -> Estimate:
    """How alike two maps of a window are by heads that differ in their random start; every other window."""
    some = np.arange(0, len(trial.windows), 2)
    windows, targets, heads = trial.windows[some], trial.targets[some], trial.controls.retrained
    one, other = (
        _in_turn(method, models, windows, targets, seed=trial.seed) for models in (heads, (*heads[1:], heads[0]))
    )
    return mean_correlation(rank_correlation(one, other, windows.real), windows.subjects)


def mean_correlation(correlations: np.ndarray, subjects: np.ndarray) -> Estimate:
    """The mean over subjects; Student's interval knows no bounds, a correlation has some."""
    found = over_subjects(correlations, subjects)
    return found if found.low is None else Estimate(found.mean, max(found.low, -1.0), min(found.high, 1.0))


def _in_turn(
    method: Method,
    models: Sequence[NeurtForSequenceClassification],
    windows: ExplainedWindows,
    targets: np.ndarray,
    *,
    seed: int,
) -> np.ndarray:
    """Maps of windows, (n, T), each by one of several models, dealt out at random."""
    maps = np.zeros(windows.real.shape)
    turn = np.random.default_rng(seed).permutation(len(windows)) % len(models)
    for place, model in enumerate(models):
        rows = np.flatnonzero(turn == place)
        if len(rows):
            maps[rows] = method(model, windows[rows], targets[rows])
    return maps


def _against(areas: Mapping[str, Estimate], alike: Mapping[str, Estimate], groups: Groups | None) -> list[str]:
    """What speaks against an explanation, the most fundamental first."""
    against = [NO_GROUPS] if groups is not None and not groups.tells else []
    # Negated, so that NaN speaks against it as well.
    against += [AS_GOOD[name] for name, area in areas.items() if area.low is not None and not area.low > 0]
    return against + [
        reason
        for name, reason in ALIKE.items()
        if name in alike and alike[name].high is not None and not alike[name].high <= MOST_ALIKE
    ]


def _unknown(subjects: np.ndarray, groups: Groups | None) -> list[str]:
    """What is not known but would have to be."""
    unknown = []
    if len(np.unique(subjects)) < FEWEST_SUBJECTS:
        unknown.append(f"there are fewer than {FEWEST_SUBJECTS} animals")
    if groups is None:
        unknown.append("there are no two classes of animals")
    return unknown


def _points(curve: np.ndarray, subjects: np.ndarray) -> tuple[Estimate, ...]:
    """The mean curve over subjects; (n, S) to S estimates."""
    return tuple(over_subjects(values, subjects) for values in curve.T)
