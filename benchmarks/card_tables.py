"""Write the measured tables of the model card and the README, so that no number of them is typed.

    python benchmarks/card_tables.py [--check]

Reads `reconstruction.json` and `architecture_trials.json` in `benchmarks/results` and replaces what stands in
both between `<!-- NAME -->` and `<!-- /NAME -->`. `--check` changes nothing and says whether they are up to date.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from architecture_trials import trials_table
from measurement import REPOSITORY, markdown_table
from neurt.processing_neurt import CHANNELS
from reconstruction_predictors import (
    AR_OTHERS,
    AR_OWN,
    COPY_LAST,
    INTERPOLATION,
    PUBLISHED,
    RIDGE_OTHERS,
    RIDGE_OWN,
    WINDOW_MEAN,
)
from reconstruction_report import JUDGED_AFTER, best_row, overview_table, rows_of, with_brackets

RESULTS = REPOSITORY / "benchmarks" / "results"
DOCUMENTS = ("model_card.md", "README.md")
SIMPLE = (INTERPOLATION, WINDOW_MEAN, AR_OTHERS, AR_OWN)
FORECASTERS = (COPY_LAST, WINDOW_MEAN, AR_OTHERS, AR_OWN)
WHOLE = ("neuron", "near", "far", "population")


def tables(reconstruction: Mapping[str, Any], trials: Mapping[str, Any]) -> dict[str, str]:
    """Every table of the card by its name."""
    sets = reconstruction["sets"]
    return {
        "gaps-r2": overview_table(sets),
        "gaps-published": gap_table(sets, [PUBLISHED]),
        "gaps-interpolation": gap_table(sets, [INTERPOLATION]),
        "gaps-best": gap_table(sets, SIMPLE),
        "whole-channels": markdown_table(
            [
                "set",
                "hidden",
                "channel",
                f"/ {RIDGE_OTHERS}",
                f"/ {RIDGE_OWN}",
                "the same, level and size from others",
            ],
            whole_rows(sets),
        ),
        "forecasts": markdown_table(["set", "channel", *(f"/ {name}" for name in FORECASTERS)], forecast_rows(sets)),
        "trials": trials_table(trials),
    }


def gap_table(sets: Mapping[str, Any], among: Sequence[str]) -> str:
    """Squared error of the model over that of the best of some predictors, by set and channel."""
    rows = []
    for name, found in sets.items():
        task = found["tasks"]["span"]
        known = {row["channel"] for row in task["rows"] if row["predictor"] in among}
        cells = [ratio(best_row(task, channel, among)) if channel in known else "–" for channel in CHANNELS]
        rows.append([name, *cells])
    return markdown_table(["set", *CHANNELS], rows)


def whole_rows(sets: Mapping[str, Any]) -> Iterator[list[str]]:
    """Whole channels hidden: over ridge regression from the visible channels, as it is and with the level told."""
    for name, found in sets.items():
        for task in (task for task in WHOLE if task in found["tasks"]):
            scores = found["tasks"][task]
            cells = [rows_of(scores, ridge) for ridge in (RIDGE_OTHERS, RIDGE_OWN)]
            told = rows_of(scores, RIDGE_OTHERS, "calibrated_rows")
            for others, own, level in zip(*cells, told, strict=True):
                yield [name, task, others["channel"], *map(ratio, (others, own, level))]


def forecast_rows(sets: Mapping[str, Any]) -> Iterator[list[str]]:
    """Forecasts 1 s ahead."""
    for name, found in sets.items():
        horizons = found["tasks"].get("forecast", {}).get("horizons", [])
        rows = {(row["predictor"], row["channel"]): row for row in horizons if row["seconds"] == JUDGED_AFTER}
        for channel in (channel for channel in CHANNELS if (COPY_LAST, channel) in rows):
            yield [name, channel, *(ratio(rows[other, channel]) for other in FORECASTERS)]


def ratio(row: Mapping[str, Any]) -> str:
    return with_brackets(row, "ratio", 2)


def fill(text: str, found: Mapping[str, str]) -> str:
    """A document with its tables in place.

    Raises:
        ValueError: If it has a place for a table that there is not.
    """

    def table(place: re.Match) -> str:
        if place[1] not in found:
            raise ValueError(f"expected places for {', '.join(found)}, got one for {place[1]}")
        return f"<!-- {place[1]} -->\n\n{found[place[1]]}\n\n<!-- /{place[1]} -->"

    return re.sub(r"<!-- ([\w-]+) -->.*?<!-- /\1 -->", table, text, flags=re.DOTALL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the documents are up to date")
    arguments = parser.parse_args()
    files = (RESULTS / f"{name}.json" for name in ("reconstruction", "architecture_trials"))
    found = tables(*(json.loads(file.read_text(encoding="utf-8")) for file in files))
    for name in DOCUMENTS:
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        filled = fill(text, found)
        if arguments.check and filled != text:
            sys.exit(f"{name}: other tables than those of the results; run without --check")
        (REPOSITORY / name).write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main()
