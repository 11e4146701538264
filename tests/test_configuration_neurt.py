"""The configuration refuses what cannot be built and survives saving."""

import pytest
from huggingface_hub.errors import StrictDataclassError
from neurt import NeurtConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 10, "num_attention_heads": 4}, "num_attention_heads divides, got 10 and 4"),
        ({"num_hidden_layers": 0}, "num_hidden_layers of at least 1, got 0"),
        ({"max_position_embeddings": 0}, "max_position_embeddings of at least 1, got 0"),
        ({"layer_norm_eps": -1.0}, "layer_norm_eps above 0"),
        ({"default_sampling_rate": 0.0}, "default_sampling_rate above 0"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob from 0 to below 1"),
        ({"hidden_act": "foo"}, "expected hidden_act among .*relu.*, got 'foo'"),
        ({"readout": "first"}, "expected readout among last, sum, got 'first'"),
        ({"readout_position": "middle"}, "expected readout_position among feed_forward, attention"),
        ({"fill": "cubic"}, "expected fill among zero, linear"),
        ({"fill": "zero", "predict_correction": True}, 'expected fill "linear" and standardize_windows with'),
        ({"standardize_windows": False}, "and standardize_windows with predict_correction, got 'linear' and False"),
        ({"input_kernel_size": 4}, "expected an odd input_kernel_size, got 4"),
        ({"position_embedding_type": "absolute"}, "expected position_embedding_type among learned, rotary"),
        ({"rope_theta": 0.0}, "rope_theta above 0"),
        ({"hidden_size": 12, "num_attention_heads": 4}, "even hidden_size / num_attention_heads for rotary .*got 3"),
        ({"hidden_size": "128"}, "hidden_size"),
    ],
)
def test_impossible_configurations_are_refused_in_words(options, message):
    with pytest.raises(StrictDataclassError, match=message):
        NeurtConfig(**options)


def test_a_configuration_survives_saving(tmp_path):
    config = NeurtConfig.original(num_hidden_layers=3, readout="sum", pretraining_subjects=["m1"])
    config.save_pretrained(tmp_path)
    loaded = NeurtConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() | {"transformers_version": 0} == config.to_dict() | {"transformers_version": 0}
    assert not loaded.use_mask_indicator and loaded.fill == "zero"
