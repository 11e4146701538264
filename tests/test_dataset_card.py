"""The card of a build says what is in it, where it comes from and what was changed; text from outside stays text."""

import datasets
import numpy as np
import pytest
from example_recordings import full_recording, recording, write
from huggingface_hub import DatasetCard
from neurt.dataset_scripts.dataset_card import render_card
from neurt.dataset_scripts.parquet_build import finish_build, read_manifest, write_file

ORIGIN = {
    "title": "MICrONS functional traces",
    "licence": "cc-by-4.0",
    "licence_name": "CC BY 4.0",
    "citation": ["MICrONS Consortium (2025), 10.1038/s41586-025-08790-w"],
    "changes": ["no movies", "somata only"],
}


def card_of(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def built(tmp_path, *recordings, name="build", **changes):
    """The card of a build of staged files."""
    staging = tmp_path / "staging"
    entries = [write_file(one, staging) for one in recordings]
    finish_build(staging, tmp_path / name, entries, **({"builder": "test", "parameters": {}} | changes))
    return card_of(tmp_path / name)


def test_the_front_matter_names_configurations_splits_features_and_sizes(tmp_path):
    recordings = [full_recording("a"), recording("b", 2)]
    write(recordings, tmp_path / "build", split={"b": "test"}, class_labels={"genotype": ["WT", "5xFAD"]})
    data = DatasetCard(card_of(tmp_path / "build")).data.to_dict()
    assert [(one["config_name"], one.get("default", False)) for one in data["configs"]] == [
        ("traces", True),
        ("units", False),
    ]
    assert data["configs"][1]["data_files"] == [
        {"split": "train", "path": "units/train.parquet"},
        {"split": "test", "path": "units/test.parquet"},
    ]
    traces, units = data["dataset_info"]
    features = {one["name"]: one for one in traces["features"]}
    assert features["trace"] == {"name": "trace", "list": "float32"} and features["seen"]["dtype"] == "bool"
    assert features["genotype"]["dtype"] == {"class_label": {"names": {"0": "WT", "1": "5xFAD"}}}
    assert [one["name"] for one in traces["features"] if one not in units["features"]] == ["trace", "segment_starts"]
    for info in (traces, units):
        assert [(one["name"], one["num_examples"]) for one in info["splits"]] == [("train", 3), ("test", 2)]
    files = (tmp_path / "build" / "data").rglob("*.parquet")
    assert traces["download_size"] == sum(path.stat().st_size for path in files)
    assert "license" not in data


def test_the_size_in_the_front_matter_is_about_that_of_the_data_in_memory(tmp_path):
    write([recording(neurons=20, frames=2000)], tmp_path / "build")
    (split,) = DatasetCard(card_of(tmp_path / "build")).data.to_dict()["dataset_info"][0]["splits"]
    opened = datasets.load_dataset(str(tmp_path / "build"), split="train", cache_dir=str(tmp_path / "cache"))
    assert split["num_bytes"] == pytest.approx(opened.data.nbytes, rel=0.1)


def test_the_contents_count_what_is_in_each_split(tmp_path):
    placed = {"centroids": np.array([[0, 0], [1, 1], [np.nan, 0]]), "coordinate_unit": "um"}
    recordings = [recording("a", **placed), recording("b", frames=9, subject_id="m2"), recording("c")]
    write(recordings, tmp_path / "build", split={"c": "test"})
    sizes = {entry["recording_id"]: entry["bytes"] for entry in read_manifest(tmp_path / "build")["files"]}
    train = (sizes["a"] + sizes["b"]) / 1000
    card = card_of(tmp_path / "build")
    assert f"| train | 2 | 2 | 6 | 2 | 4 to 9 | 5.1 | {train:.1f} kB |" in card
    assert f"| test | 1 | 1 | 3 | 0 | 4 | 5.1 | {sizes['c'] / 1000:.1f} kB |" in card
    assert card.index("| train |") < card.index("| test |") and "without neighbour channels: a, b, c." in card


def test_the_table_of_columns_gives_types_labels_and_classes(tmp_path):
    recordings = [full_recording("a"), recording("b", labels={"genotype": "WT", "age": "9"})]
    write(recordings, tmp_path / "build", class_labels={"genotype": ["WT", "5xFAD"]})
    card = card_of(tmp_path / "build")
    assert "| `root_id` | int64, nullable | of each neuron |" in card
    assert "| `age` | string, nullable | label: 8, 9 |" in card
    assert "| `genotype` | class label, nullable | label: 0 = WT, 1 = 5xFAD |" in card


def test_a_stated_origin_gives_title_licence_citation_and_changes(tmp_path):
    card = built(tmp_path, recording(), origin=ORIGIN)
    assert DatasetCard(card).data.license == "cc-by-4.0"
    assert "\n# MICrONS functional traces\n" in card and "- MICrONS functional traces: CC BY 4.0\n" in card
    assert "## Changes from the source\n\n- no movies\n- somata only\n" in card
    assert card.endswith("## Citation\n\n- MICrONS Consortium (2025), 10.1038/s41586-025-08790-w\n")
    assert "None is stated" not in card


def test_an_origin_says_what_columns_of_its_own_mean(tmp_path):
    card = built(tmp_path, full_recording(), origin={"columns": {"snr": "signal | noise"}})
    assert "| `snr` | float32, nullable | signal \\| noise |" in card
    assert "| `quality` | float64, nullable | of each neuron |" in card


def test_without_an_origin_no_licence_is_claimed(tmp_path):
    card = built(tmp_path, recording())
    assert DatasetCard(card).data.license is None and "None is stated here" in card
    assert "## Citation" not in card and "## Changes" not in card


def test_the_licence_of_one_source_is_not_claimed_for_what_is_added_from_another(tmp_path):
    built(tmp_path, recording("a"), origin=ORIGIN)
    card = built(tmp_path, recording("b"), recording("c"))
    assert DatasetCard(card).data.license is None
    assert "- MICrONS functional traces: CC BY 4.0\n- The other recordings (2): none is stated here" in card


def test_the_same_origin_twice_is_said_once(tmp_path):
    built(tmp_path, recording("a"), origin=ORIGIN)
    card = built(tmp_path, recording("b"), origin=ORIGIN)
    assert card.count("somata only") == 1 and DatasetCard(card).data.license == "cc-by-4.0"


def test_the_steps_give_versions_parameters_and_what_was_left_out(tmp_path):
    dropped = [{"recording_id": f"r{i}", "why": "no masks"} for i in range(23)]
    card = built(tmp_path, recording(), parameters={"masks": "soma"}, dropped=dropped)
    version = read_manifest(tmp_path / "build")["steps"][0]["version"]
    assert f"- test, neurt {version} (masks = soma)\n  - left out: r0: no masks\n" in card
    assert "left out: r19: no masks\n  - left out: 3 more, see `manifest.json`\n" in card
    assert "The layout is format 1 of NEuRT builds" in card


def test_the_card_says_what_was_done_to_the_traces(tmp_path):
    dff = {"dff": "(F - F0) / F0, F0 the running percentile 10 over 60 s"}
    sources = [
        {"trace": "F - c Fneu", "neuropil_coefficient": 0.7, "preparation": dff},
        {"trace": "F - c Fneu", "neuropil_coefficient": 0.7},
        {"trace": "estimates.C", "preparation": {"resampled_from": 30.0, "resampling": "low-pass filtered, 1/3"}},
        {},
    ]
    card = built(tmp_path, *(recording(f"r{n}", source=source) for n, source in enumerate(sources)))
    assert (
        "\n- traces: F - c Fneu, c = 0.7 (2 of 4 recordings)\n- traces: estimates.C (1 of 4 recordings)\n"
        "- dF/F made of 1 recording: (F - F0) / F0, F0 the running percentile 10 over 60 s\n"
        "- 1 recording resampled from 30 Hz to 5.1 Hz\n"
    ) in card


def test_the_card_shows_how_to_open_the_build_with_a_path_to_fill_in(tmp_path):
    assert 'load_dataset("PATH_OR_NAME", "units")' in built(tmp_path, recording())


def test_text_from_outside_stays_text(tmp_path):
    labels = {"note": "<script>x</script> | [a](b)\n# c\x1b[2J\u202e $x$"}
    origin = {"title": "<b>\n---\n# t", "changes": ["[a](javascript:b)"], "licence": "x\n---\ny"}
    dropped = [{"recording_id": "<img src=x>", "why": "a\n---\nb"}]
    card = built(tmp_path, recording(labels=labels), dropped=dropped, origin=origin)
    body = card.split("\n---\n", 1)[1]
    assert DatasetCard(card).data.license == "x\n---\ny" and DatasetCard(card).text.strip() == body.strip()
    assert "<script>" not in card and "<img" not in card and "<b>" not in card and "[a]" not in body
    assert "\n# c" not in card and "\n---\n" not in body and "\x1b" not in card and "\u202e" not in card


def test_markdown_shows_text_from_outside_as_it_is(tmp_path):
    markdown_it = pytest.importorskip("markdown_it")
    text = "<i>a</i> *b* _c_ `d` [e](f) & \\ | ~g~ # h"
    card = built(tmp_path, recording(labels={"note": text}), dropped=[{"recording_id": "r2", "why": text}])
    shown = markdown_it.MarkdownIt("commonmark").enable("table").render(card.split("\n---\n", 1)[1])
    escaped = "&lt;i&gt;a&lt;/i&gt; *b* _c_ `d` [e](f) &amp; \\ | ~g~ # h"
    assert f"<li>left out: r2: {escaped}</li>" in shown and f"<td>label: {escaped}</td>" in shown


def test_a_card_of_simulated_recordings_says_so(tmp_path):
    write([recording()], tmp_path / "real", builder="neurt import")
    write([recording(modality="simulated")], tmp_path / "made")
    assert "simulated" not in card_of(tmp_path / "real")
    made = card_of(tmp_path / "made")
    assert "# Neuronal activity, simulated\n" in made and "**All recordings here are simulated.**" in made


def test_a_card_of_some_simulated_recordings_says_how_many(tmp_path):
    write([recording("r1"), recording("r2", modality="two-photon")], tmp_path / "build")
    write([recording("r3", modality="simulated")], tmp_path / "build")
    card = card_of(tmp_path / "build")
    assert "# Neuronal activity, partly simulated\n" in card and "**1 of 3 recordings here are simulated.**" in card


def test_the_card_is_made_of_the_manifest_alone(tmp_path):
    built(tmp_path, full_recording(), origin=ORIGIN)
    assert render_card(read_manifest(tmp_path / "build")) == card_of(tmp_path / "build")
