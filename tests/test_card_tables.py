"""The tables of the model card and the README are those of the results, to the digit."""

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from card_sentences import sentences
from card_tables import CARD, REPOSITORY, SIMPLE, documents, fill, gap_table, tables, with_metadata
from neurt.ledger import MEASUREMENTS
from release_ledger import make_ledger


@pytest.fixture(scope="module")
def ledger():
    return make_ledger()


def test_no_number_was_typed(ledger):
    for name, text in documents(ledger).items():
        assert (REPOSITORY / name).read_text(encoding="utf-8") == text, name


def test_the_card_shows_every_table_and_every_sentence(ledger):
    card = (REPOSITORY / CARD).read_text(encoding="utf-8")
    found = tables(ledger[MEASUREMENTS]) | sentences(ledger[MEASUREMENTS])
    assert all(text in card for text in found.values())
    assert set(re.findall(r"<!-- ([\w-]+) -->", card)) == found.keys()


def test_outside_of_its_places_the_card_has_no_measured_number():
    card = (REPOSITORY / CARD).read_text(encoding="utf-8")
    # What the recordings are was not measured here, but told by who made them.
    told = r"\n### The recordings\n.*?(?=\n## )"
    typed = re.sub(rf"\A---.*?\n---\n|{told}|<!-- ([\w-]+) -->.*?<!-- /\1 -->", "", card, flags=re.DOTALL)
    # Shares of frames that are hidden, lengths in frames, horizons: settings, not measurements.
    settings = {"128", "1", "10", "15", "95", "0.75", "0.3", "256", "10.64898", "2026.01.13.699305", "2.0"}
    numbers = set(re.findall(r"(?<![\w.])\d+(?:\.\d+)*(?![\w])", typed))
    assert numbers <= settings


def test_metadata_replace_those_at_the_head_alone():
    assert with_metadata("---\na: 1\n---\n\ntext\n---\nb\n---\n", "c: 2") == "---\nc: 2\n---\n\ntext\n---\nb\n---\n"


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
