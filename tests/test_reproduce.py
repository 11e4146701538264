"""Measuring again: what agrees, what is said to differ, and that a stranger's ledger runs nothing."""

import dataclasses
import json
import shutil

import pytest
from neurt import reproduce as module
from neurt.reproduce import Benchmark, reproduce
from safetensors.numpy import load_file, save_file

SCRIPT = """
import json, sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert words["--sets"] == "mice" and "config.json" in __import__("os").listdir(words["--model"])
found = {"rows": [{"channel": "own", "r2": 0.5002, "r2_interval": [0.4, 0.6]}], "windows": 12, "seconds": 7.0}
found["provenance"] = {"seed": 0, "data_sha256": "d" * 64, "split_sha256": None}
json.dump(found, open(words["--output"].removesuffix("md") + "json", "w"))
"""


@pytest.fixture
def copied(pretrained, tmp_path):
    """A copy of the pretrained model, to change."""
    return shutil.copytree(pretrained, tmp_path / "model", ignore=shutil.ignore_patterns("training"))


def results(folder):
    return json.loads((folder / "results.json").read_text())


def change(folder, **entries):
    (folder / "results.json").write_text(json.dumps(results(folder) | entries))


@pytest.mark.parametrize(("model", "kind"), [("pretrained", "reconstruction"), ("classifier", "classification")])
def test_the_test_of_a_training_gives_the_same_again(model, kind, build, request, neurt):
    folder = request.getfixturevalue(model)
    code, out, _ = neurt("reproduce", folder, "--build", build)
    assert code == 0 and out.endswith("all as before\n")
    assert results(folder)["provenance"]["weights_sha256"] in out
    numbers = sum(len(row) for row in results(folder)[kind]["rows"])
    assert int(out.partition("held_out: ")[2].split()[0]) > numbers


def test_a_changed_weight_is_noticed_and_the_numbers_that_it_changes_are_told(copied, build, neurt):
    weights = load_file(copied / "model.safetensors")
    name = next(name for name in weights if "decoder" in name and name.endswith("bias"))
    save_file({**weights, name: weights[name] + 1}, copied / "model.safetensors", metadata={"format": "pt"})
    before = next(row for row in results(copied)["reconstruction"]["rows"] if row["predictor"] == "model")
    code, out, _ = neurt("reproduce", copied, "--build", build)
    assert code == 1 and "weights: not those of the ledger: SHA-256 of model.safetensors is " in out
    assert f"  reconstruction / rows / model, own / r2: {before['r2']:.5g} before, " in out
    assert "linear interpolation, own" not in out and "not all as before" in out


def test_another_build_is_noticed(copied, rebuild, tmp_path):
    other = rebuild(tmp_path / "other", lambda each: dataclasses.replace(each, traces=each.traces + 1))
    _, outcome = reproduce(copied, build=other)
    assert not outcome.agrees and outcome.differences[0].name == "data_sha256"


def test_without_the_build_nothing_is_passed_over_in_silence(copied, neurt):
    code, out, _ = neurt("reproduce", copied)
    assert code == 1 and "held_out: not rerun: needs the build that it was trained on; pass --build" in out


def test_rows_of_weights_before_training_are_not_asked_for(copied, build):
    scores = results(copied)["reconstruction"]
    scores["rows"].append({**scores["rows"][0], "predictor": "model before training", "r2": 9.0})
    change(copied, reconstruction=scores)
    assert all(outcome.agrees for outcome in reproduce(copied, build=build))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"measurements": ["reconstruction"]}, "expected measurements by their names"),
        ({"measurements": {"size": "rm -r /"}}, "expected measurements by their names"),
        ({"settings": {"training": {"seed": 0}}}, "expected results as a training writes them"),
        ({"settings": "none"}, "expected results as a training writes them"),
    ],
)
def test_a_ledger_that_is_none_is_refused_in_one_line(copied, build, neurt, entries, words):
    change(copied, **entries)
    code, _, err = neurt("reproduce", copied, "--build", build)
    assert code == 2 and words in err and "Traceback" not in err


@pytest.fixture
def benchmark(copied, monkeypatch, tmp_path):
    """A ledger of one benchmark, and its script, which is ours."""
    script = tmp_path / "scripts" / "mice.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    known = {"mice": Benchmark("mice.py", "mice.md", "mice.json", ("--sets", "mice"), needs="some mice")}
    monkeypatch.setattr(module, "_SCRIPTS", script.parent)
    monkeypatch.setattr(module, "BENCHMARKS", known)
    digest = results(copied)["provenance"]["weights_sha256"]
    numbers = {"rows": [{"channel": "own", "r2": 0.5, "r2_interval": [0.4, 0.6]}], "windows": 12, "seconds": 1.0}
    entry = {"command": "x", "seed": 0, "weights_sha256": digest, "data_sha256": "d" * 64, "split_sha256": None}
    change(copied, measurements={"mice": entry | {"numbers": numbers}})
    return script


def entry_of(copied):
    return results(copied)["measurements"]["mice"]


def test_a_benchmark_is_run_on_the_folder_and_compared(copied, benchmark):
    weights, mice = reproduce(copied)
    # own, r2, two ends of its interval, windows; seed and two digests. The time is not compared.
    assert weights.agrees and mice.agrees and mice.compared == 5 + 3


def test_numbers_and_data_that_differ_are_told_old_beside_new(copied, benchmark):
    entry = entry_of(copied) | {"data_sha256": "e" * 64}
    entry["numbers"] |= {"windows": 11, "animals": 3}
    change(copied, measurements={"mice": entry})
    report = list(reproduce(copied))[1].report().splitlines()
    assert report[0] == "mice: 3 of 9 values differ"
    assert report[1:] == [
        f"  data_sha256: {'e' * 64} before, {'d' * 64} now",
        "  windows: 11 before, 12 now",
        "  animals: 3 before, none now",
    ]


def test_what_a_benchmark_leaves_stays_where_it_was_asked_for_and_nowhere_else(copied, benchmark, tmp_path, neurt):
    before = set(tmp_path.iterdir())
    assert neurt("reproduce", copied)[0] == 0
    assert set(tmp_path.iterdir()) == before
    code, out, _ = neurt("reproduce", copied, "--output", tmp_path / "again" / "all")
    assert code == 0 and "mice: begins" in out and "8 values compared, all as before" in out
    benchmark.write_text("raise SystemExit(1)")
    code, out, _ = neurt("reproduce", copied, "--output", tmp_path / "again" / "all")
    assert code == 0 and f"mice: measured before, lies in {tmp_path / 'again' / 'all'}" in out
    found = json.loads((tmp_path / "again" / "all" / "mice.json").read_text())
    found["provenance"]["weights_sha256"] = "e" * 64
    (tmp_path / "again" / "all" / "mice.json").write_text(json.dumps(found))
    code, out, _ = neurt("reproduce", copied, "--output", tmp_path / "again" / "all")
    assert code == 1 and f"{'e' * 64} now" in out, "what lies there may be of other weights"
    (tmp_path / "again" / "all" / "mice.json").write_text("torn")
    code, out, _ = neurt("reproduce", copied, "--output", tmp_path / "again" / "all")
    assert code == 1 and "mice: not rerun: " in out and "remove the file" in out


def test_a_benchmark_that_fails_says_what_it_needs_and_why(copied, benchmark, neurt):
    benchmark.write_text("raise ValueError('no mice here')")
    code, out, _ = neurt("reproduce", copied)
    assert code == 1
    assert "mice: not rerun: needs some mice; mice.py ended with: ValueError: no mice here" in out


def test_a_ledger_names_no_command_and_no_script_that_is_run(copied, benchmark, tmp_path, neurt):
    trap = tmp_path / "trap"
    entry = entry_of(copied) | {"command": f"touch {trap}", "script": f"touch {trap}"}
    names = ["mice", "../scripts/mice", f"x; touch {trap}", "\x1b[2Jred"]
    change(copied, measurements={name: entry for name in names})
    code, out, _ = neurt("reproduce", copied)
    assert code == 1 and not trap.exists() and "\x1b" not in out
    assert out.count("not rerun: neurt knows no such measurement") == 3 and "8 values compared, all as before" in out


def test_only_what_is_asked_for_is_measured_again(copied, benchmark, neurt):
    benchmark.write_text("raise SystemExit(1)")
    assert [outcome.name for outcome in reproduce(copied, only=["weights"])] == ["weights"]
    code, _, err = neurt("reproduce", copied, "--only", "rats")
    assert code == 2 and "expected measurements among weights, mice, got rats" in err


def test_the_size_of_the_shipped_weights_is_that_of_their_ledger(neurt):
    code, out, _ = neurt("reproduce", "shipped", "--only", "size")
    assert "size: 4 values compared, all as before" in out


def test_every_benchmark_that_may_be_run_is_there():
    scripts = {each.script for each in module.BENCHMARKS.values()}
    assert all((module._SCRIPTS / script).is_file() for script in scripts)
