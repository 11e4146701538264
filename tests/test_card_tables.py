"""The tables of the model card and the README are those of the results, to the digit."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from card_tables import DOCUMENTS, REPOSITORY, RESULTS, SIMPLE, fill, gap_table, tables


@pytest.fixture(scope="module")
def found():
    files = (RESULTS / f"{name}.json" for name in ("reconstruction", "architecture_trials"))
    return tables(*(json.loads(file.read_text(encoding="utf-8")) for file in files))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_number_of_a_table_was_typed(found, name):
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    assert fill(text, found) == text


def test_the_card_shows_every_table(found):
    card = (REPOSITORY / "model_card.md").read_text(encoding="utf-8")
    assert all(table in card for table in found.values())


def test_a_ratio_is_that_of_the_best_of_the_others():
    def row(predictor, error, ratio):
        return {
            "predictor": predictor,
            "channel": "own",
            "squared_error": error,
            "ratio": ratio,
            "ratio_interval": [ratio - 0.1, ratio + 0.1],
        }

    rows = [row("linear interpolation", 2.0, 0.5), row("window mean", 0.8, 1.25), row("model", 1.0, 1.0)]
    table = gap_table({"mice": {"tasks": {"span": {"rows": rows}}}}, SIMPLE)
    assert table.splitlines()[-1] == "| mice | 1.25 [1.15, 1.35] | – | – | – | – |"


def test_a_place_is_filled_and_filled_again_and_an_unknown_one_refused():
    text = "before\n<!-- numbers -->\nold\n<!-- /numbers -->\nafter"
    once = fill(text, {"numbers": "| 1 |"})
    assert once == "before\n<!-- numbers -->\n\n| 1 |\n\n<!-- /numbers -->\nafter" == fill(once, {"numbers": "| 1 |"})
    with pytest.raises(ValueError, match="expected places for other, got one for numbers"):
        fill(text, {"other": ""})
