"""The weights at the root: what `NeurtConfig()` says, opened as a user opens them, better than a line across a gap."""

import numpy as np
import pytest
import torch
from neurt import NeurtConfig, NeurtProcessor
from neurt.dataset_scripts.simulate_corpus import CorpusConfig, simulate_corpus
from neurt.dataset_scripts.windows import WindowDataset
from neurt.evaluation import evaluate_reconstruction
from neurt.loading import shipped_model
from neurt.masking import MaskedSignalCollator
from neurt.processing_neurt import CHANNELS
from torch.utils.data import DataLoader, Subset
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoProcessor


@pytest.fixture(scope="module")
def model():
    return AutoModelForPreTraining.from_pretrained(shipped_model())


def test_the_default_configuration_is_that_of_the_shipped_weights():
    shipped, default = AutoConfig.from_pretrained(shipped_model()).to_dict(), NeurtConfig().to_dict()
    of_the_training = {"pretraining_subjects", "architectures", "dtype", "auto_map", "_name_or_path"}
    assert {k: v for k, v in shipped.items() if k not in of_the_training} == {
        k: v for k, v in default.items() if k not in of_the_training
    }
    processor = AutoProcessor.from_pretrained(shipped_model())
    assert processor.window_length == NeurtProcessor().window_length == shipped["max_position_embeddings"]


def test_every_weight_is_in_the_file_and_of_use(model):
    _, report = AutoModelForPreTraining.from_pretrained(shipped_model(), output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert all(torch.isfinite(weight).all() for weight in model.state_dict().values())
    encoder = AutoModel.from_pretrained(shipped_model())
    assert encoder.num_parameters() < model.num_parameters()


def test_gaps_of_animals_it_never_saw_are_filled_better_than_by_lines(model):
    recordings = list(simulate_corpus(CorpusConfig(recordings=20, seed=5)))
    assert not {recording.subject_id for recording in recordings} & set(model.config.pretraining_subjects)
    windows = WindowDataset(recordings, AutoProcessor.from_pretrained(shipped_model()), missing_neighbours="mask")
    sample = Subset(windows, windows.sample(8).tolist())
    scores = evaluate_reconstruction(
        model.eval(), DataLoader(sample, 32, collate_fn=MaskedSignalCollator(0)), simulated=True
    )
    for channel in CHANNELS:
        ours, of_lines = (scores.row(name, channel)["r2"] for name in ("model", "linear interpolation"))
        assert np.isfinite(ours) and ours > of_lines, channel
