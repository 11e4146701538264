"""The benchmark of real groups, on a tiny stand-in for the real recordings."""

import dataclasses
import json
import sys
from pathlib import Path

from neurt.dataset_scripts.parquet_build import read_build

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import real_groups


def test_a_set_is_reported_with_the_command_that_makes_it_again(build, pretrained, tmp_path, monkeypatch, capsys):
    def without_positions(recording):
        labels = {"label": recording.labels["group"]}
        return dataclasses.replace(recording, labels=labels, centroids=None, coordinate_unit=None)

    sets = {"ca1_ca3_events": lambda: map(without_positions, read_build(build))}
    monkeypatch.setattr(real_groups, "real_sets", lambda: sets)
    monkeypatch.setattr(real_groups, "shipped_model", lambda: pretrained)
    monkeypatch.setattr("sys.argv", ["x", "--sets", *sets, "--windows", "4", "--output", str(tmp_path)])
    real_groups.main()
    folder = tmp_path / "groups_ca1_ca3_events"
    results = json.loads((folder / "results.json").read_text())
    assert results["num_windows"] == 12 * 4 and results["options"]["missing_neighbours"] == "mask"
    assert "python benchmarks/real_groups.py --sets ca1_ca3_events --windows 4" in (folder / "report.md").read_text()
    assert "ca1_ca3_events: 0." in capsys.readouterr().out
