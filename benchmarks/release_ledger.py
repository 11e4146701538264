"""The ledger of the shipped release: what the benchmarks found, as far as the card shows it, and with what.

    python benchmarks/card_tables.py

writes it to `results.json` at the root of the repository, then the card from it. It is made of the JSON files that the
benchmarks left in `benchmarks/results`; what was not measured is not in it.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from measurement import REPOSITORY
from neurt.crossval.provenance import weights_digest
from neurt.ledger import ENTRY, MEASUREMENTS
from neurt.reproduce import BENCHMARKS, SIZE, TRAINING, origin_of, size_of
from reconstruction_predictors import AR_OTHERS, AR_OWN, COPY_LAST, RIDGE_OTHERS, RIDGE_OWN, WINDOW_MEAN
from reconstruction_report import JUDGED_AFTER, OVERVIEW

RESULTS = REPOSITORY / "benchmarks" / "results"
WHOLE = ("neuron", "near", "far", "population")
FORECASTERS = (COPY_LAST, WINDOW_MEAN, AR_OTHERS, AR_OWN)
# What of a row is shown, or decides what is.
_OF_GAPS = ("r2", "r2_interval", "ratio", "ratio_interval", "squared_error")
_OF_OTHERS = ("ratio", "ratio_interval")


def make_ledger(folder: Path = RESULTS, model: Path = REPOSITORY) -> dict[str, Any]:
    """The ledger, from the results in a folder and the weights of a model."""
    found = {name: folder / benchmark.found for name, benchmark in BENCHMARKS.items()}
    found[TRAINING] = folder / f"{TRAINING}.json"
    read = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in found.items() if path.is_file()}
    measurements = {name: entry(origin_of(each), SHOWN[name](each)) for name, each in read.items()}
    origin = {"command": "python benchmarks/card_tables.py", "weights_sha256": weights_digest(model)}
    return {MEASUREMENTS: measurements | {SIZE: entry(origin, size_of(model))}}


def entry(origin: Mapping[str, Any], numbers: Any) -> dict[str, Any]:
    """What the ledger says of one measurement; null is what nobody knows, or what it has not."""
    return {key: origin.get(key) for key in ENTRY if key != "numbers"} | {"numbers": numbers}


def reconstruction_numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    """The rows that the tables of the card are made of."""
    return {"sets": {name: {"tasks": _tasks(each["tasks"])} for name, each in found["sets"].items()}}


def _tasks(tasks: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"span": {"rows": _rows(tasks["span"]["rows"], OVERVIEW, _OF_GAPS)}}
    for task in (task for task in WHOLE if task in tasks):
        shown[task] = {
            "rows": _rows(tasks[task]["rows"], (RIDGE_OTHERS, RIDGE_OWN), _OF_OTHERS),
            "calibrated_rows": _rows(tasks[task]["calibrated_rows"], (RIDGE_OTHERS,), _OF_OTHERS),
        }
    if "forecast" in tasks:
        judged = (row for row in tasks["forecast"]["horizons"] if row["seconds"] == JUDGED_AFTER)
        shown["forecast"] = {"horizons": _rows(judged, FORECASTERS, ("seconds", *_OF_OTHERS))}
    return shown


def _rows(rows: Iterable[Mapping[str, Any]], predictors: Sequence[str], keys: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {key: row[key] for key in ("predictor", "channel", *keys)} for row in rows if row["predictor"] in predictors
    ]


def groups_numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a study's verdict is made of."""
    predictors = {
        name: {key: value for key, value in row.items() if key != "subjects"}
        for name, row in found["predictors"].items()
    }
    return {key: found[key] for key in ("score_name", "simulated", "subjects")} | {"predictors": predictors}


def studies_numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    """What all studies say together."""
    return {"summary": found["summary"]}


def trials_numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    """Every variant."""
    return {key: found[key] for key in ("steps", "variants")}


def training_numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    """How the weights were made."""
    return {key: value for key, value in found.items() if key != "provenance"}


SHOWN: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "reconstruction": reconstruction_numbers,
    "groups_ca1_ca3_events": groups_numbers,
    "groups_park_v1": groups_numbers,
    "planted_groups": studies_numbers,
    "null_studies": studies_numbers,
    "planted_explanations": studies_numbers,
    "architecture_trials": trials_numbers,
    TRAINING: training_numbers,
}
