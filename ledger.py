"""The ledger of a model folder, `results.json`: every number that its card shows, and what it was measured with.

Of a release, `measurements` has one entry for each benchmark, see `ENTRY`. Of a model that `neurt pretrain` or
`neurt finetune` made, the whole file is one measurement, on the animals that its split holds out.

A ledger comes from anywhere: nothing that it says is run, and what it says is shown as text.
"""

import json
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

LEDGER = "results.json"
MEASUREMENTS = "measurements"
ENTRY = {
    "command": "what was run, without paths of the machine",
    "seed": "of everything random",
    "simulated": "whether the recordings were",
    "weights_sha256": "of model.safetensors; null where other weights were measured",
    "data_sha256": "of the arrays that were read; of the settings of what was simulated; of the manifest of a build",
    "split_sha256": "of who was held out; null where nobody is",
    "versions": "of the packages that computed it",
    "numbers": "what was found, as far as the card shows it",
}
# Sums of float32 depend in their last digits on processor, threads and version of the matrix library; what is wrong in
# earnest, as other weights, other windows or another mask, moves the third digit, which is the last that a card shows.
RELATIVE, ABSOLUTE = 1e-3, 1e-5
# No two runs take the same time.
TIMES = frozenset({"seconds", "minutes", "hours"})
# What tells the rows of a list from each other.
_NAMES = ("predictor", "channel", "level", "subject_id", "seconds")
_MOST_BYTES, _DEEPEST = 2**26, 100


@dataclass(frozen=True)
class Difference:
    """A number that is another one than before; None if it is not there.

    Args:
        name: Where it stands in the ledger.
        old: What the ledger says.
        new: What was measured again.
    """

    name: str
    old: Any
    new: Any


def read_ledger(folder: Path) -> dict[str, Any]:
    """What `results.json` of a model folder holds.

    Raises:
        ValueError: If there is none, or it is no JSON object.
    """
    path = Path(folder) / LEDGER
    if not path.is_file():
        raise ValueError(
            f"expected {LEDGER} in the folder of a model, got none in {folder}; there is nothing to compare"
        )
    return read_object(path)


def read_object(path: Path) -> dict[str, Any]:
    """What a JSON file holds.

    Raises:
        ValueError: If it is no object, or larger than any that neurt writes.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= _MOST_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object as neurt writes it, got something else; remove the file")
    return found


def provenance_of(results: Mapping[str, Any]) -> Mapping[str, Any]:
    """With what results were measured; empty where they do not say."""
    found = results.get("provenance")
    return found if isinstance(found, Mapping) else {}


def differences(old: Any, new: Any) -> tuple[list[Difference], int]:
    """Where two measurements disagree, and how many numbers were compared; what only the new one has is passed over.

    Whole numbers and text are compared exactly, fractions to `RELATIVE` of their size or `ABSOLUTE`; times not at all.
    """
    before, now = dict(leaves(old)), dict(leaves(new))
    kept = {name: value for name, value in before.items() if not TIMES.intersection(name)}
    found = [
        Difference(" / ".join(name), value, now.get(name))
        for name, value in kept.items()
        if name not in now or not agree(value, now[name])
    ]
    return found, len(kept)


def leaves(value: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each single value of nested JSON, with the names that lead to it; rows are named by what they are of.

    Raises:
        ValueError: If it is nested deeper than any that neurt writes.
    """
    if len(name) > _DEEPEST:
        raise ValueError(f"expected numbers at most {_DEEPEST} levels deep, got deeper ones")
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, (*name, str(key)))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for place, item in enumerate(value):
            yield from leaves(item, (*name, _row_name(place, item)))
    else:
        yield name, value


def _row_name(place: int, item: Any) -> str:
    known = [str(item[key]) for key in _NAMES if key in item] if isinstance(item, Mapping) else []
    return ", ".join(known) or str(place)


def agree(old: Any, new: Any) -> bool:
    """Whether two values are the same, see `differences`."""
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (old, new)):
        return type(old) is type(new) and old == new
    if isinstance(old, int) and isinstance(new, int):
        return old == new
    try:
        old, new = float(old), float(new)
    except OverflowError:  # whole numbers in JSON have no end
        return False
    both_undefined = math.isnan(old) and math.isnan(new)
    return both_undefined or math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def plain_command(words: Iterable[str]) -> str:
    """A command without paths of this machine, for what is published: of those only the last part stays.

    Args:
        words: The command, word by word.
    """
    return shlex.join(map(_plain_word, words))


def _plain_word(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return f"{option}{equals}{_last_part(value)}"


def _last_part(value: str) -> str:
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(value)
        if path.is_absolute() or path.parts[:1] == ("~",) or ".." in path.parts:
            return path.name if path.name not in ("", "..") else "."
    return value
