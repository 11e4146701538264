"""The windows that are explained: what is hidden of them, and the log-odds that are explained."""

import math

import numpy as np
import pytest
import torch
from neurt import NeurtConfig, NeurtForSequenceClassification, NeurtProcessor
from neurt.dataset_scripts.simulate import simulate_study
from neurt.dataset_scripts.simulation_config import SimulationConfig
from neurt.dataset_scripts.windows import WindowDataset
from neurt.explain.explained import gather, hide, log_odds, log_odds_of

SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def dataset():
    study = SimulationConfig(subjects_per_group=2, neurons=6, duration=20)
    recordings, _ = simulate_study(study)
    ids = {"control": 0, "planted": 1}
    return WindowDataset(recordings, NeurtProcessor(window_length=32), label="group", label2id=ids)


@pytest.fixture(scope="module")
def windows(dataset):
    return gather(dataset, np.arange(0, len(dataset), 5))


def test_gathered_windows_know_where_they_are_from(dataset, windows):
    for place, row in enumerate(range(0, len(dataset), 5)):
        window = dataset[row]
        torch.testing.assert_close(windows.inputs["input_values"][place], torch.as_tensor(window["input_values"]))
        assert windows.subjects[place] == window["subject_id"]
        assert windows.classes[place] == window["labels"]
        assert windows.roi_ids[place] == window["roi_id"]
        assert windows.start_frame[place] == window["start_frame"]


def test_some_of_the_windows_keep_their_places(windows):
    chosen = windows[np.array([3, 1])]
    assert chosen.subjects.tolist() == windows.subjects[[3, 1]].tolist()
    assert chosen.roi_ids == (windows.roi_ids[3], windows.roi_ids[1])
    torch.testing.assert_close(chosen.inputs["input_values"][0], windows.inputs["input_values"][3])


def test_windows_without_a_label_have_no_classes():
    recordings, _ = simulate_study(SimulationConfig(subjects_per_group=1, neurons=6, duration=20))
    unlabelled = gather(WindowDataset(recordings, NeurtProcessor(window_length=32)), [0, 1])
    assert unlabelled.subjects.tolist() == ["sim001", "sim001"]
    with pytest.raises(ValueError, match="pass --label"):
        _ = unlabelled.classes


def test_log_odds_set_a_class_against_all_others():
    logits = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    found = log_odds(logits, torch.tensor([2, 0]))
    assert found.tolist() == pytest.approx([4 - math.log(math.exp(1) + math.exp(2)), -math.log(2)])


def test_log_odds_of_two_classes_are_the_difference_of_their_logits():
    assert log_odds(torch.tensor([[3.0, 1.0]]), torch.tensor([1])).item() == pytest.approx(-2)


def test_hidden_frames_do_not_reach_the_model(windows):
    model = NeurtForSequenceClassification(NeurtConfig(**SIZES, num_labels=2, max_position_embeddings=32)).eval()
    hidden = np.zeros((len(windows), 32), dtype=bool)
    hidden[:, 10:20] = True
    changed = {**windows.inputs, "input_values": windows.inputs["input_values"].clone()}
    changed["input_values"][:, 10:20] = 1e6
    targets = windows.classes
    np.testing.assert_allclose(
        log_odds_of(model, hide(changed, hidden), targets),
        log_odds_of(model, hide(windows.inputs, hidden), targets),
        rtol=1e-5,
    )
    assert np.abs(log_odds_of(model, changed, targets) - log_odds_of(model, windows.inputs, targets)).max() > 1e-3


def test_hiding_keeps_what_was_absent(windows):
    absent = torch.zeros_like(windows.inputs["input_values"], dtype=torch.bool)
    absent[..., 1:] = True
    hidden = hide({**windows.inputs, "bool_masked_pos": absent}, np.zeros((len(windows), 32), dtype=bool))
    assert torch.equal(hidden["bool_masked_pos"], absent)
