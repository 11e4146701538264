"""The ledger: what is compared how, what a ledger of a stranger may hold, and what that of the release says."""

import math

import pytest
from neurt.crossval.provenance import weights_digest
from neurt.ledger import ENTRY, MEASUREMENTS, Difference, agree, differences, leaves, plain_command, read_ledger
from neurt.loading import shipped_model
from neurt.reproduce import BENCHMARKS, SIZE, TRAINING


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        (0.5, 0.5004, True),
        (0.5, 0.5006, False),
        (0.0, 0.000009, True),
        (0.0, 0.00002, False),
        (100, 100.0, True),
        (100, 101, False),
        (10**6, 10**6 + 1, False),
        (math.nan, math.nan, True),
        (math.nan, 0.5, False),
        (None, None, True),
        (None, 0.0, False),
        (True, 1, False),
        ("a", "a", True),
        ("a", "b", False),
        ("1", 1, False),
        (10**400, 0.5, False),
        (10**400, 10**400, True),
    ],
)
def test_fractions_agree_to_a_thousandth_and_all_else_exactly(old, new, same):
    assert agree(old, new) is same


def test_numbers_are_named_by_what_leads_to_them_and_rows_by_what_they_are_of():
    rows = [
        {"predictor": "model", "channel": "own", "r2": 0.5, "r2_interval": [0.4, 0.6]},
        {"level": "subject", "n": 3},
    ]
    found = {" / ".join(name): value for name, value in leaves({"gaps": rows, "seed": 0})}
    assert found["gaps / model, own / r2"] == 0.5 and found["gaps / model, own / r2_interval / 1"] == 0.6
    assert found["gaps / subject / n"] == 3 and found["seed"] == 0


def test_rows_may_change_their_order_and_new_ones_are_passed_over():
    old = {"rows": [{"channel": "own", "r2": 0.5}, {"channel": "near", "r2": 0.25}]}
    new = {"rows": [{"channel": "far", "r2": 0.1}, {"channel": "near", "r2": 0.25}, {"channel": "own", "r2": 0.75}]}
    found, compared = differences(old, new)
    assert found == [Difference("rows / own / r2", 0.5, 0.75)] and compared == 4


def test_what_is_not_measured_again_differs_and_times_are_not_compared():
    old = {"r2": 0.5, "minutes": 3.0, "of": {"seconds": {"model": 2.0}}}
    assert differences(old, {"minutes": 9.0}) == ([Difference("r2", 0.5, None)], 1)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["neurt", "pretrain", "/home/mia/secret/BUILD", "--output", "MODEL"], "neurt pretrain BUILD --output MODEL"),
        (["neurt", "evaluate", "../mia/MODEL", "data/BUILD"], "neurt evaluate MODEL data/BUILD"),
        (["neurt", "embed", "~/BUILD", "--output=/tmp/x y.parquet"], "neurt embed BUILD '--output=x y.parquet'"),
        (["neurt", "finetune", r"C:\Users\mia\BUILD", "--label", "a=b"], "neurt finetune BUILD --label a=b"),
        (["neurt", "import", "..", "/"], "neurt import . ."),
        (["neurt", "pretrain", "hf://datasets/mia/BUILD", "--model", "mia/name"], None),
    ],
)
def test_a_command_that_is_written_down_has_no_paths_of_this_machine(words, command):
    assert plain_command(words) == (command or " ".join(words))


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, '"x"'])
def test_what_is_no_ledger_is_refused(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match="results.json: expected a JSON object as neurt writes it"):
        read_ledger(tmp_path)


def test_a_ledger_that_is_nested_without_end_is_refused_in_one_line():
    deep = 1
    for _ in range(500):
        deep = {"numbers": deep}
    with pytest.raises(ValueError, match="expected numbers at most 100 levels deep"):
        differences(deep, deep)


def test_a_folder_without_a_ledger_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected results.json in the folder of a model, got none"):
        read_ledger(tmp_path)


@pytest.fixture(scope="module")
def shipped():
    return read_ledger(shipped_model())[MEASUREMENTS]


def test_the_ledger_of_the_release_says_of_each_measurement_what_it_is_of(shipped):
    assert shipped.keys() <= {*BENCHMARKS, SIZE, TRAINING}
    for name, entry in shipped.items():
        assert entry.keys() == ENTRY.keys()
        assert entry["command"].split()[0] in ("python", "make"), name
        assert any(isinstance(value, int | float) for _, value in leaves(entry["numbers"]))


def test_no_measurement_of_the_release_is_of_other_weights(shipped):
    digests = {entry["weights_sha256"] for name, entry in shipped.items() if name != "architecture_trials"}
    assert digests == {weights_digest(shipped_model())}
    assert shipped["architecture_trials"]["weights_sha256"] is None
