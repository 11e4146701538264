"""Splits by animal, made before any window is cut, stored and hashed."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .dataset_scripts.recording import Recording

SPLIT_BY = ("subject", "session")


@dataclass(frozen=True)
class Split:
    """Which groups (animals, or sessions of one animal) train, which choose the checkpoint, which are tested.

    Args:
        by: "subject" or "session".
        train: Sorted ids.
        validation: Sorted ids; may be empty.
        test: Sorted ids; looked at once, after training.
    """

    by: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def recordings(self, recordings: Iterable[Recording], part: str) -> list[Recording]:
        """The recordings of one part: "train", "validation" or "test"."""
        return [recording for recording in recordings if group_of(recording, self.by) in getattr(self, part)]

    def to_dict(self) -> dict:
        """For JSON, with a SHA-256 over the ids, by which results name the split they were measured on."""
        parts = {"by": self.by, "train": self.train, "validation": self.validation, "test": self.test}
        return {**parts, "sha256": hashlib.sha256(json.dumps(parts).encode()).hexdigest()}


def group_of(recording: Recording, by: str) -> str:
    """The id that must not stand on two sides of a split."""
    return recording.subject_id if by == "subject" else recording.session_id


def split_recordings(
    recordings: Sequence[Recording],
    *,
    by: str = "subject",
    test: Sequence[str] = (),
    test_fraction: float = 0.2,
    validation_fraction: float = 0.0,
    label: str | None = None,
    seed: int = 0,
) -> Split:
    """Split recordings by animal (or by session, where there is one animal).

    Args:
        recordings: What to split.
        by: "subject" or "session".
        test: Ids to hold out; if empty, `test_fraction` of them is drawn.
        test_fraction: Share of ids to hold out, at least one (of each class); used if `test` is empty.
        validation_fraction: Share of the remaining ids that chooses the checkpoint; 0 for none.
        label: Draw the same share of each of this label's classes.
        seed: Seed of the draw.

    Raises:
        ValueError: If an id to hold out does not exist, an animal has two classes, or nothing is left to train on.
    """
    if by not in SPLIT_BY:
        raise ValueError(f"expected a split by {' or '.join(SPLIT_BY)}, got {by!r}")
    classes = _classes(recordings, by, label)
    unknown = sorted(set(test) - set(classes))
    if unknown:
        raise ValueError(f"expected {by}s to hold out among {', '.join(sorted(classes))}, got {', '.join(unknown)}")
    generator = np.random.default_rng(seed)
    test = sorted(set(test)) or _draw(classes, test_fraction, generator)
    rest = {group: value for group, value in classes.items() if group not in test}
    validation = _draw(rest, validation_fraction, generator) if validation_fraction else []
    train = sorted(set(rest) - set(validation))
    if not train or not test:
        hint = "split by session" if by == "subject" and len(classes) == 1 else "hold out fewer"
        raise ValueError(
            f"expected at least one {by} to train on and one to test on, got {len(classes)} in all, {len(test)} for "
            f"the test and {len(validation)} for validation; {hint}"
        )
    return Split(by, tuple(train), tuple(validation), tuple(test))


def _classes(recordings: Sequence[Recording], by: str, label: str | None) -> dict[str, str]:
    """The class of each group; one class for all without a label."""
    classes: dict[str, str] = {}
    for recording in recordings:
        group = group_of(recording, by)
        value = "" if label is None else label_of(recording, label)
        if classes.setdefault(group, value) != value:
            raise ValueError(f"expected one {label} for each {by}, got {classes[group]!r} and {value!r} for {group!r}")
    return classes


def label_of(recording: Recording, label: str) -> str:
    """The recording's class.

    Raises:
        ValueError: If it has none.
    """
    value = recording.labels.get(label)
    if value is None:
        known = ", ".join(recording.labels) or "none"
        raise ValueError(
            f"recording {recording.recording_id!r}: expected a label {label!r}, got labels: {known}; import it with "
            "one, or leave it out"
        )
    return str(value)


def _draw(classes: Mapping[str, str], fraction: float, generator: np.random.Generator) -> list[str]:
    """Draw a share of the groups of each class, at least one."""
    drawn = []
    for value in sorted(set(classes.values())):
        groups = sorted(group for group in classes if classes[group] == value)
        drawn += generator.permutation(groups)[: max(1, round(fraction * len(groups)))].tolist()
    return sorted(drawn)


def check_disjoint(train: Iterable[Recording], test: Iterable[Recording]) -> None:
    """Refuse an animal that stands on both sides.

    Raises:
        ValueError: Naming the animals.
    """
    shared = sorted({r.subject_id for r in train} & {r.subject_id for r in test})
    if shared:
        raise ValueError(
            f"expected no subject in both training and test recordings, got {', '.join(shared[:5])}; hold out whole "
            "animals, or allow it in so many words with --allow-shared-subjects"
        )
