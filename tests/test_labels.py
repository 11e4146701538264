"""A table of labels finds every subject or recording, and nothing that is not there."""

import numpy as np
import pytest
from neurt.dataset_scripts.labels import check_all_labelled, read_labels, with_labels
from neurt.dataset_scripts.recording import Recording


def table(folder, text):
    (folder / "mice.csv").write_text(text)
    return read_labels(folder / "mice.csv")


def recording(name="r1", subject="M1", **labels):
    traces = np.zeros((1, 40), np.float32)
    ids = {"recording_id": name, "subject_id": subject, "session_id": name, "roi_ids": ("0",)}
    return Recording(traces=traces, sampling_rate=5.0, labels=labels, **ids)


def test_labels_go_to_the_recordings_of_a_subject_or_to_one_recording(tmp_path):
    by_subject = table(tmp_path, "genotype,subject,cage\nwild type,M1,3\n5xFAD,M2,\n")
    assert with_labels(recording("r1"), by_subject).labels == {"genotype": "wild type", "cage": "3"}
    assert with_labels(recording("r2", "M2", sex="f"), by_subject).labels == {
        "sex": "f",
        "genotype": "5xFAD",
        "cage": None,
    }
    by_recording = table(tmp_path, "recording,task\nr2,rest\n")
    assert with_labels(recording("r2"), by_recording).labels == {"task": "rest"}
    unknown = recording("r1")
    assert with_labels(unknown, by_recording) is unknown


def test_the_classes_are_the_distinct_values_in_order(tmp_path):
    labels = table(tmp_path, "subject,genotype,note\nM1,wild type,\nM2,5xFAD,\nM3,wild type,\nM4,,\n")
    assert labels.class_labels == {"genotype": ["5xFAD", "wild type"]}


def test_a_label_that_is_stated_twice_must_agree(tmp_path):
    labels = table(tmp_path, "subject,genotype,cage\nM1,5xFAD,\n")
    assert with_labels(recording(genotype="5xFAD", cage="7"), labels).labels == {"genotype": "5xFAD", "cage": "7"}
    assert with_labels(recording(genotype=None), labels).labels["genotype"] == "5xFAD"
    with pytest.raises(ValueError, match="'r1'.*label genotype, got 'wt' from --metadata and '5xFAD' from .*mice.csv"):
        with_labels(recording(genotype="wt"), labels)


def test_everything_has_a_row_and_every_row_something(tmp_path):
    labels = table(tmp_path, "subject,genotype\nM1,a\nM2,b\nM3,b\n")
    check_all_labelled(labels, ["M2", "M1", "M1", "M3"])
    check_all_labelled(labels, ["M2", "M1"], allowed=["M3"])
    with pytest.raises(ValueError, match="expected a row for every subject, got none for M4, M5; add what is missing"):
        check_all_labelled(labels, ["M4", "M1", "M5", "M4"])
    with pytest.raises(ValueError, match="each subject that is there, got M3; there are M1, M2; correct or remove"):
        check_all_labelled(labels, ["M1", "M2"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header with a column subject or recording, got an empty table"),
        ("subject,genotype\n", "one line per subject or recording below the header, got none"),
        ("mouse,genotype\nM1,a\n", "one of them subject or recording, got mouse, genotype"),
        (
            "subject,recording,sex\nM1,r1,f\n",
            "one of them subject or recording, got subject, recording, sex",
        ),
        ("subject\nM1\n", "a column for each label beside subject, got none"),
        ("recording,session,split,sex\nr1,s,test,f\n", "got session, split, which only --metadata knows"),
        ("subject,genotype,genotype\nM1,a,a\n", "each column once, got genotype"),
        ("subject,gene type\nM1,a\n", "got 'gene type'"),
        ('"sub\nject",genotype\nM1,a\n', "got sub ject, genotype"),
        ("subject,genotype\nM1,a\nM2\n", "line 3: expected 2 cells"),
        ("subject,genotype\nM1,a\n\nM1,a\n", "line 4: expected each subject once, got 'M1' again"),
        ("recording,genotype\n,a\n", "line 2: expected a recording, got an empty cell"),
        ("subject,genotype\nM1,\u00b5\n".encode("latin-1"), "a CSV table in UTF-8"),
    ],
)
def test_a_table_that_is_no_table_of_labels_is_one_plain_line(tmp_path, text, message):
    (tmp_path / "mice.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"mice\.csv.*" + message) as error:
        read_labels(tmp_path / "mice.csv")
    assert "\n" not in str(error.value)
