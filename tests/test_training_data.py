"""What the windows of training were is told to those who use the model."""

from dataclasses import replace

from neurt import NeurtProcessor
from neurt.dataset_scripts.parquet_build import read_build
from neurt.training.data import describe_training


def test_a_model_trained_on_many_frame_rates_expects_none(build):
    recordings = list(read_build(build))
    faster = [replace(recording, sampling_rate=6.0, trace_kind="dff") for recording in recordings[:1]]
    described = describe_training(NeurtProcessor(), recordings + faster)
    assert described.sampling_rate is None and described.trace_kind is None
    assert NeurtProcessor().sampling_rate is None
