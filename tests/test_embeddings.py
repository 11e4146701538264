"""Features of windows that the probe learns from."""

import numpy as np
import torch
from neurt import NeurtProcessor
from neurt.crossval.embeddings import embed_windows, mean_and_spread
from neurt.dataset_scripts.windows import WindowDataset
from small_builds import recording

PROCESSOR = NeurtProcessor(window_length=40)


def embed(model, recordings):
    dataset = WindowDataset(recordings, PROCESSOR)
    return embed_windows(model.neurt.eval(), dataset, np.arange(len(dataset)))


def test_mean_and_spread_are_over_real_frames_alone():
    embeddings = torch.tensor([[[1.0, 5.0], [3.0, 5.0], [100.0, -7.0]]])
    found = mean_and_spread(embeddings, torch.tensor([[1, 1, 0]]))
    torch.testing.assert_close(found, torch.tensor([[2.0, 5.0, 1.0, 0.0]]))


def test_every_window_is_embedded_once_and_knows_its_recording(tiny_model):
    model = tiny_model()
    recordings = [recording(1), recording(2, frames=80)]
    both = embed(model, recordings)
    alone = [embed(model, [each]) for each in recordings]
    assert both.recording_ids == tuple(each.recording_id for each in recordings)
    for place, one in enumerate(alone):
        mine = both.recording == place
        np.testing.assert_allclose(both.values[mine], one.values, atol=1e-5)
        np.testing.assert_array_equal(both.start_frame[mine], one.start_frame)
    assert both.values.shape == (sum(len(one.values) for one in alone), 2 * model.config.hidden_size)


def test_a_recording_is_the_mean_of_its_windows(tiny_model):
    features = embed(tiny_model(), [recording(1), recording(2)])
    means = [features.values[features.recording == place].mean(0) for place in (0, 1)]
    np.testing.assert_allclose(features.of_recordings(), means, atol=1e-5)
