"""What separates two groups: which channel, and its level, its variability or its timing?

    print(separate(model, windows).sentence)

Each visible channel of a window is its level (its mean), plus its deviation (its standard deviation) times its course.
The distribution of the course, sparse or even, is its shape: the part of variability that one number does not tell.
An aspect is neutralised by giving it to all windows alike, and the gap between the groups shrinks by what the model
owes to that aspect:

- level: the mean over animals. Where activity is higher it also varies more, as a rule, and otherwise; so deviation
  and shape follow: they change by what is usual at the common level against what is usual at that of the animal.
  Animals whose neurons fire three times as much thus differ in level alone, even for a model that tells them by their
  larger deviation.
- variability: deviation and shape become what is usual at the animal's level. So it is only variability beyond what
  goes with the level. The order of the values stays: what was the highest still is.
- timing: the frames come in random order, which keeps level, variability and every single value.
- everything: all three. Nothing is left but what channels have in common.
- coupling: the course is turned in time, the end following the beginning, so that it keeps its own timing but for the
  seam, and loses that of the other channels. What coupling takes, timing takes as well.

What is usual at a level is fitted to the windows, over both groups at once, which may differ in it by a constant: the
relation itself, not what separates the groups, is taken from deviation and shape.

Shapes: n windows, T frames, C channels, S animals, Q quantiles.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from ..crossval.intervals import bootstrap_over_subjects
from ..markdown_text import markdown_table
from ..modeling_neurt import NeurtForSequenceClassification
from ..processing_neurt import CHANNELS
from .attribution import channel_names, means_of_animals, visible_values
from .curves import Estimate
from .explained import ExplainedWindows, log_odds_of
from .group_maps import FEWEST, subjects_of

LEVEL, VARIABILITY, TIMING, EVERYTHING, COUPLING = "level", "variability", "timing", "everything", "coupling"
# Which of these a channel's share of the gap is first of all owed to, is asked of the first three.
ASPECTS = (LEVEL, VARIABILITY, TIMING)
COLUMNS = (*ASPECTS, EVERYTHING, COUPLING)
ALL_CHANNELS = "all channels"
# What is usual is fitted with a knot for so many windows, and at most so many knots.
WINDOWS_FOR_A_KNOT, MOST_KNOTS = 20, 10
# What takes a smaller share of the gap is not named.
LEAST_SHARE = 0.1
# How finely the shape of a course is known.
QUANTILES = 32

Progress = Callable[[Iterable], Iterable]


@dataclass(frozen=True, eq=False)
class Pieces:
    """Windows, taken apart: values are level + deviation × course wherever they are visible.

    Args:
        values: float64 (n, T, C).
        visible: bool (n, T, C), False at padding and where a channel is absent.
        level: (n, C), means over what is visible.
        deviation: (n, C), standard deviations.
        course: (n, T, C), of mean 0 and, unless the channel is flat, standard deviation 1.
        common_level: (C,), means over animals.
        usual: The deviation (n, C), and the quantiles of the course (n, Q, C), that are usual at the level of each
            window's animal.
        usual_in_common: The same at the common level, (C,) and (Q, C).
    """

    values: np.ndarray
    visible: np.ndarray
    level: np.ndarray
    deviation: np.ndarray
    course: np.ndarray
    common_level: np.ndarray
    usual: tuple[np.ndarray, np.ndarray]
    usual_in_common: tuple[np.ndarray, np.ndarray]

    def together(self) -> np.ndarray:
        """The windows again, float32 (n, T, C); what is not visible stays what it was."""
        values = self.level[:, None] + self.deviation[:, None] * self.course
        return np.where(self.visible, values, self.values).astype(np.float32)


@dataclass(frozen=True)
class Separation:
    """What separates two groups, as a classifier sees them.

    Args:
        class_names: Of class 0 and class 1.
        num_animals: Of each.
        gap: The mean over animals of class 1 of their mean log-odds of class 1, less that of class 0.
        lost: For each channel, and for `ALL_CHANNELS`, what share of the gap each of `COLUMNS` takes when it is
            neutralised there; 1 is all of it. Empty where the gap may be 0, of which there are no shares.
        channel: The channel that owns more of the gap than any other; `ALL_CHANNELS` where none clearly does.
        aspect: The aspect of it that takes more than any other, at least `LEAST_SHARE`; None where none clearly does.
    """

    class_names: tuple[str, str]
    num_animals: tuple[int, int]
    gap: Estimate
    lost: Mapping[str, Mapping[str, Estimate]]
    channel: str
    aspect: str | None

    @property
    def sentence(self) -> str:
        """What separates the groups, in words and numbers."""
        gap = f"{self.gap.short()} log-odds"
        if not self.lost:
            return (
                f"The model does not tell the groups apart here, so nothing separates them for it: the gap is {gap}."
            )
        lost = self.lost[self.channel]
        owner = "all channels together" if self.channel == ALL_CHANNELS else f"the {_in_words(self.channel)}"
        ranked = sorted(ASPECTS, key=lambda aspect: -lost[aspect].mean)
        if self.aspect is None:
            said = ", ".join(f"{aspect} {lost[aspect].percent()}" for aspect in ranked)
            return (
                f"No aspect of {owner} alone tells the groups apart: of the gap of {gap}, neutralising takes {said}."
            )
        others = ", ".join(f"{aspect} {lost[aspect].percent()}" for aspect in ranked[1:])
        turned = f" Turning it in time takes {lost[COUPLING].percent()}." if self.aspect == TIMING else ""
        return (
            f"The groups are told apart by the {self.aspect} of {owner}: neutralising it takes "
            f"{lost[self.aspect].percent()} of the gap of {gap}; {others}.{turned}"
        )

    def to_markdown(self) -> str:
        """The sentence and, where there is a gap, the table."""
        if not self.lost:
            return self.sentence
        rows = [[name, *(lost[column].percent() for column in COLUMNS)] for name, lost in self.lost.items()]
        about = (
            f"Share of the gap that is lost when an aspect of a channel is neutralised; in brackets the 95 % interval "
            f"over animals ({self.num_animals[0]} {self.class_names[0]}, {self.num_animals[1]} {self.class_names[1]})."
        )
        return "\n\n".join([self.sentence, about, markdown_table(["channel", *COLUMNS], rows)])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**dataclasses.asdict(self), "sentence": self.sentence}


def separate(
    model: NeurtForSequenceClassification, windows: ExplainedWindows, *, seed: int = 0, progress: Progress = iter
) -> Separation:
    """Find out what separates the groups: neutralise one aspect after the other and see what is left of the gap.

    The animal is the unit: log-odds of windows are averaged over each animal's, and intervals are over animals.

    Args:
        model: A classifier of two classes.
        windows: Of labelled animals, some of each class.
        seed: Of the order of frames and of the bootstrap.
        progress: Wrapped around the neutralised aspects, for a progress bar.

    Raises:
        ValueError: If there are not two classes, fewer than three animals of one, or an animal is of both.
    """
    animals, ones = _Animals.of(model, windows), np.ones(len(windows), dtype=int)
    before = animals.means(log_odds_of(model, windows.inputs, ones))
    found = Separation(
        class_names=tuple(model.config.id2label[place] for place in range(2)),
        num_animals=tuple(np.bincount(animals.classes).tolist()),
        gap=animals.estimate(lambda counts: animals.gap(before, counts), seed),
        lost={},
        channel=ALL_CHANNELS,
        aspect=None,
    )
    if found.gap.low <= 0:
        return found
    pieces = take_apart(windows)
    names = channel_names(pieces.values.shape[2])
    channels = {name: np.array(names) == name for name in names} | {ALL_CHANNELS: np.ones(len(names), dtype=bool)}
    cells = [(name, column) for name in channels for column in COLUMNS]
    scores = {}
    for name, column in progress(cells):
        changed = neutralise(pieces, column, channels[name], seed)
        inputs = {**windows.inputs, "input_values": torch.as_tensor(changed.together())}
        scores[name, column] = animals.means(log_odds_of(model, inputs, ones))
    lost = {
        name: {column: animals.share_lost(before, scores[name, column], seed) for column in COLUMNS}
        for name in channels
    }
    channel = animals.first(before, {name: scores[name, EVERYTHING] for name in names}, seed) or ALL_CHANNELS
    aspect = animals.first(before, {each: scores[channel, each] for each in ASPECTS}, seed)
    return dataclasses.replace(found, lost=lost, channel=channel, aspect=aspect)


@dataclass(frozen=True, eq=False)
class _Animals:
    """S animals of two classes; scores are (S,), and counts (m, S) say how often each is in each of m samples."""

    place: np.ndarray
    classes: np.ndarray

    @staticmethod
    def of(model: NeurtForSequenceClassification, windows: ExplainedWindows) -> "_Animals":
        place, (_, classes) = np.unique(windows.subjects, return_inverse=True)[1], subjects_of(windows)
        counts = np.bincount(classes, minlength=2)
        if model.num_labels != 2 or len(counts) != 2 or counts.min() < FEWEST:
            raise ValueError(
                f"expected a model of two classes, and {FEWEST} animals of each, to say what separates them, "
                f"got {model.num_labels} classes and {', '.join(map(str, counts))} animals"
            )
        return _Animals(place, classes)

    def means(self, of_windows: np.ndarray) -> np.ndarray:
        """Means over the windows of each animal."""
        return np.bincount(self.place, of_windows) / np.bincount(self.place)

    def gap(self, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The mean over class 1 less that over class 0 in each sample, (m,)."""
        ones, zeros = counts * self.classes, counts * (1 - self.classes)
        return ones @ scores / ones.sum(1) - zeros @ scores / zeros.sum(1)

    def share_lost(self, before: np.ndarray, after: np.ndarray, seed: int) -> Estimate:
        return self.estimate(lambda counts: 1 - self.gap(after, counts) / self.gap(before, counts), seed)

    def first(self, before: np.ndarray, after: Mapping[str, np.ndarray], seed: int) -> str | None:
        """Which takes the most of the gap, if it takes some of it, and more than the second, over animals."""
        left = {name: self.gap(scores, np.ones((1, len(scores))))[0] for name, scores in after.items()}
        best, second = sorted(left, key=left.get)[:2]
        takes = self.share_lost(before, after[best], seed)
        more = self.estimate(lambda counts: self.gap(after[second] - after[best], counts), seed)
        return best if takes.mean >= LEAST_SHARE and min(takes.low, more.low) > 0 else None

    def estimate(self, statistic: Callable[[np.ndarray], np.ndarray], seed: int) -> Estimate:
        """A statistic of all animals, and its interval."""
        everyone = np.ones((1, len(self.classes)))
        return Estimate(float(statistic(everyone)[0]), *bootstrap_over_subjects(statistic, self.classes, seed=seed))


def take_apart(windows: ExplainedWindows) -> Pieces:
    """Level, deviation and course of each channel of each window, and what is usual at a level."""
    values = visible_values(windows)
    of_animals = means_of_animals(values.mean(1), windows.subjects)
    common_level = of_animals.mean(0).filled(0)
    level_of_animal = of_animals.filled(common_level)[np.unique(windows.subjects, return_inverse=True)[1]]
    level, deviation = values.mean(1).filled(0), values.std(1).filled(0)
    course = ((values - level[:, None]) / np.where(deviation > 0, deviation, 1)[:, None]).filled(0)
    visible = ~np.ma.getmaskarray(values)
    shape = quantiles(course, visible)
    usual, usual_in_common = _ones_and_zeros(shape), _ones_and_zeros(shape[0])
    for channel in range(level.shape[1]):
        varies = deviation[:, channel] > 0
        if not varies.any():
            continue
        known = np.column_stack([np.log(deviation[varies, channel]), shape[varies, :, channel]])
        usually = usual_at_level(level[varies, channel], known, windows.classes[varies])
        for (width, form), levels in (
            (usual, level_of_animal[:, channel]),
            (usual_in_common, common_level[channel]),
        ):
            found = usually(levels)
            width[..., channel], form[..., channel] = np.exp(found[..., 0]), found[..., 1:]
    return Pieces(values.data, visible, level, deviation, course, common_level, usual, usual_in_common)


def quantiles(course: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Quantiles (n, Q, C) of the visible values of courses (n, T, C), at the middles of Q equal shares."""
    count = visible.sum(1, keepdims=True)
    place = (np.arange(QUANTILES)[:, None] + 0.5) / QUANTILES * count - 0.5
    return _between(np.sort(np.where(visible, course, np.inf), axis=1), np.clip(place, 0, np.maximum(count - 1, 0)))


def at_ranks(shape: np.ndarray, course: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """The quantiles of a shape (n, Q, C) at the ranks of the values of courses (n, T, C); equal values stay equal."""
    ranks = rankdata(np.where(visible, course, np.inf), axis=1) - 0.5
    place = ranks / np.maximum(visible.sum(1, keepdims=True), 1) * QUANTILES - 0.5
    return _between(shape, np.clip(place, 0, QUANTILES - 1))


def usual_at_level(level: np.ndarray, values: np.ndarray, classes: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What values are usual at a level: they lie on lines between knots, plus a constant of each class.

    Knots are at quantiles of the level; beyond the outer ones the lines go on flat.

    Args:
        level: (n,).
        values: (n, K).
        classes: 0 or 1, (n,).

    Returns:
        A function of levels (m,), to (m, K); half way between the classes.
    """
    count = int(np.clip(len(level) // WINDOWS_FOR_A_KNOT, 1, MOST_KNOTS))
    knots = np.unique(np.quantile(level, np.linspace(0, 1, count) if count > 1 else [0.5]))

    def hats(levels: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(levels, knots, hat) for hat in np.eye(len(knots))], axis=-1)

    # Where only one class has the channel, nothing between the classes is known.
    between = classes - 0.5 if len(np.unique(classes)) > 1 else np.zeros(len(classes))
    found, *_ = np.linalg.lstsq(np.column_stack([hats(level), between]), values)
    return lambda levels: hats(levels) @ found[:-1]


def _ones_and_zeros(shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A deviation for each channel of each shape (..., Q, C), and as many shapes, to be filled."""
    return np.ones(np.delete(shape.shape, -2)), np.zeros(shape.shape)


def _between(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Values (n, P, C) at places of their second axis that need not be whole, (n, M, C); lines between."""
    below, above = np.floor(place).astype(int), np.ceil(place).astype(int)
    low, high = (np.take_along_axis(values, where, axis=1) for where in (below, above))
    with np.errstate(invalid="ignore"):  # infinite where nothing is visible
        return np.nan_to_num(low + (place - below) * (high - low), nan=0.0, posinf=0.0)


def neutralise(pieces: Pieces, aspect: str, channels: np.ndarray, seed: int = 0) -> Pieces:
    """Give an aspect of some channels to all windows alike; see the top of this file.

    Args:
        pieces: The windows.
        aspect: One of `COLUMNS`.
        channels: Which channels, bool (C,).
        seed: Of the order of frames.
    """
    if aspect == EVERYTHING:
        for each in (VARIABILITY, LEVEL, TIMING):
            pieces = neutralise(pieces, each, channels, seed)
        return pieces
    (width, shape), (common_width, common_shape) = pieces.usual, pieces.usual_in_common
    if aspect == LEVEL:
        moved = pieces.course + at_ranks(common_shape - shape, pieces.course, pieces.visible)
        changed = {
            "level": np.broadcast_to(pieces.common_level, pieces.level.shape),
            "deviation": pieces.deviation * common_width / width,
            "course": _standard(moved, pieces),
        }
    elif aspect == VARIABILITY:
        usual = at_ranks(shape, pieces.course, pieces.visible)
        changed = {"deviation": width, "course": _standard(usual, pieces)}
    else:
        order = random_order if aspect == TIMING else turned
        changed = {"course": np.take_along_axis(pieces.course, order(pieces.visible, seed), axis=1)}
    return dataclasses.replace(
        pieces, **{name: np.where(channels, values, getattr(pieces, name)) for name, values in changed.items()}
    )


def _standard(course: np.ndarray, pieces: Pieces) -> np.ndarray:
    """A course with mean 0 and standard deviation 1 again; one that was flat stays flat."""
    seen = np.ma.masked_array(course, ~pieces.visible)
    centered = seen - seen.mean(1, keepdims=True)
    deviation = centered.std(1, keepdims=True).filled(0)
    varies = (deviation > 0) & (pieces.deviation > 0)[:, None]
    return np.where(varies, centered.filled(0) / np.where(deviation > 0, deviation, 1), 0)


def random_order(visible: np.ndarray, seed: int) -> np.ndarray:
    """The visible frames of each window in random order, the same in its channels; int (n, T, C)."""
    keys = np.random.default_rng(seed).random(visible.shape[:2])[..., None]
    return _rearranged(visible, np.where(visible, keys, np.inf))


def turned(visible: np.ndarray, seed: int) -> np.ndarray:
    """The visible frames turned in time, the end following the beginning, each channel another way; int (n, T, C)."""
    windows, _, channels = visible.shape
    count, place = visible.sum(1, keepdims=True), visible.cumsum(1) - 1
    shift = np.random.default_rng(seed).integers(1, np.maximum(count, 2), size=(windows, 1, channels))
    return _rearranged(visible, np.where(visible, (place + shift) % np.maximum(count, 1), np.inf))


def _rearranged(visible: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Where each frame is taken from, so that visible ones come in the order of their keys and others stay."""
    by_key, place = keys.argsort(axis=1, kind="stable"), np.maximum(visible.cumsum(1) - 1, 0)
    frames = np.arange(visible.shape[1])[:, None]
    return np.where(visible, np.take_along_axis(by_key, place, axis=1), frames)


def _in_words(channel: str) -> str:
    """A channel within a sentence."""
    return "own trace" if channel == CHANNELS[0] else channel
