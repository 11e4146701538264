"""The manifest of a build says what is in it, and one from a stranger is checked before it is used."""

import json

import pytest
from damaged_files import damage, damages, reads_or_refuses
from example_recordings import full_recording, recording, write
from hypothesis import given
from neurt.dataset_scripts.build_manifest import parse_manifest, path_of, read_manifest
from neurt.dataset_scripts.dataset_card import render_card
from neurt.dataset_scripts.parquet_build import read_build


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifest") / "build"
    write([full_recording("a"), recording("b")], folder, class_labels={"genotype": ["WT", "5xFAD"]})
    return folder


def changed(build, *keys, to):
    """The manifest with another value at a place."""
    manifest = part = json.loads((build / "manifest.json").read_bytes())
    for key in keys[:-1]:
        part = part[key]
    if to is None:
        del part[keys[-1]]
    else:
        part[keys[-1]] = to
    return json.dumps(manifest).encode()


def test_an_entry_says_what_is_in_the_file(build):
    entry = read_manifest(build)["files"][0]
    assert entry["columns"] == {
        "mask_type": "string",
        "note": "string",
        "quality": "float64",
        "root_id": "int64",
        "seen": "bool",
        "snr": "float32",
    }
    assert entry["labels"] == {"age": "8", "genotype": "5xFAD"} and entry["source"] == {"file": "a.mat"}
    assert (entry["neurons"], entry["frames"], entry["neurons_with_positions"]) == (3, 4, 2)
    assert entry["path"] == path_of("a", "train") == "data/train/a.parquet"


@pytest.mark.parametrize(
    ("keys", "to"),
    [
        (("format",), 2),
        (("format",), None),
        (("files", 0, "path"), "../other.parquet"),
        (("files", 0, "path"), "data/train/b.parquet"),
        (("files", 0, "recording_id"), "../a"),
        (("files", 0, "recording_id"), ["a"]),
        (("files", 0, "split"), "holdout"),
        (("files", 0, "neurons"), "3"),
        (("files", 0, "sha256"), None),
        (("files", 0, "labels"), {"genotype": 3}),
        (("files", 0, "labels"), {"trace": "x"}),
        (("files", 0, "columns"), {"q": "object"}),
        (("files", 0, "source"), "a.mat"),
        (("files", 0, "source"), {"preparation": "dff"}),
        (("files", 0, "source"), {"preparation": {"dff": ["a"]}}),
        (("files", 0, "source"), {"preparation": {"resampled_from": "5 Hz"}}),
        (("files",), {"a": 1}),
        (("units", 0, "path"), "../units/train.parquet"),
        (("units", 0, "split"), "../train"),
        (("units", 0, "sha256"), None),
        (("files",), 3),
        (("steps", 0, "dropped"), ["a"]),
        (("steps", 0, "parameters"), []),
        (("steps", 0, "origin"), {"licence": ["a"]}),
        (("steps", 0, "origin"), {"changes": "all"}),
        (("steps", 0, "origin"), {"columns": ["quality"]}),
        (("class_labels",), []),
        (("class_labels", "genotype"), "WT"),
    ],
)
def test_a_manifest_that_cannot_be_relied_on_is_refused(build, keys, to):
    with pytest.raises(ValueError, match="expected a NEuRT build") as error:
        parse_manifest(changed(build, *keys, to=to), build)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"files": []}'])
def test_what_is_no_manifest_is_refused(build, text):
    assert "expected a NEuRT build" in reads_or_refuses(lambda: parse_manifest(text, build))


@damages
@given(broken=damage())
def test_a_damaged_manifest_is_used_or_refused_with_one_line(build, tmp_path_factory, broken):
    text = broken((build / "manifest.json").read_bytes())

    def use():
        manifest = parse_manifest(text, build)
        assert render_card(manifest)

    reads_or_refuses(use)


def test_files_of_other_animals_are_not_opened(build):
    assert list(read_build(build, subjects=["m9"])) == []
