"""Write the ledger of the release, and every measured number of the model card and the README from it.

    python benchmarks/card_tables.py [--check]

Makes `results.json` of what lies in `benchmarks/results` (see `release_ledger`), then replaces what stands in both
documents between `<!-- NAME -->` and `<!-- /NAME -->`, and the metadata at the head of the card. `--check` changes
nothing and says whether they are up to date.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from architecture_trials import trials_table
from card_sentences import metadata, sentences
from measurement import REPOSITORY, markdown_table
from neurt.dataset_scripts.build_manifest import to_json
from neurt.ledger import LEDGER, MEASUREMENTS
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
from reconstruction_report import best_row, overview_table, rows_of, with_brackets
from release_ledger import FORECASTERS, WHOLE, make_ledger

CARD, README = "model_card.md", "README.md"
SIMPLE = (INTERPOLATION, WINDOW_MEAN, AR_OTHERS, AR_OWN)


def documents(ledger: Mapping[str, Any]) -> dict[str, str]:
    """Each file that is made of the ledger, by its name, as it should be."""
    entries = ledger[MEASUREMENTS]
    found = sentences(entries) | tables(entries)
    filled = {name: fill((REPOSITORY / name).read_text(encoding="utf-8"), found) for name in (CARD, README)}
    return {LEDGER: to_json(ledger), **filled, CARD: with_metadata(filled[CARD], metadata(entries))}


def tables(entries: Mapping[str, Any]) -> dict[str, str]:
    """Every table of the card by its name, from the entries of the ledger."""
    sets = entries["reconstruction"]["numbers"]["sets"]
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
        "trials": trials_table(entries["architecture_trials"]["numbers"]),
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
        rows = {(row["predictor"], row["channel"]): row for row in horizons}
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


def with_metadata(card: str, data: str) -> str:
    """The card with other YAML between the lines of dashes at its head."""
    return re.sub(r"\A---\n.*?\n---\n", lambda _: f"---\n{data}\n---\n", card, flags=re.DOTALL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the documents are up to date")
    arguments = parser.parse_args()
    for name, text in documents(make_ledger()).items():
        path = REPOSITORY / name
        if arguments.check and (not path.is_file() or path.read_text(encoding="utf-8") != text):
            sys.exit(f"{name}: other numbers than those of the results; run without --check")
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
