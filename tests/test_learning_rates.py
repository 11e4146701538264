"""Each depth of the encoder learns at its own rate in fine-tuning."""

import pytest
from neurt import NeurtConfig, NeurtForSequenceClassification
from neurt.train import parameter_groups
from neurt.training.options import FinetuneOptions


def learning_rates(model, **finetuning):
    groups = parameter_groups(model, FinetuneOptions("group", **finetuning), learning_rate=1e-4)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}


def four_layers(**settings):
    return NeurtForSequenceClassification(NeurtConfig(hidden_size=8, intermediate_size=8, **settings))


def test_each_layer_learns_at_0_9_of_the_rate_of_the_one_above_and_embeddings_at_0_512():
    model = four_layers()
    rates = learning_rates(model, head_learning_rate=0.5)
    assert rates.keys() == dict(model.named_parameters()).keys()
    factors = {"layers.3.": 1, "layers.2.": 0.9, "layers.1.": 0.81, "layers.0.": 0.729, "embeddings.": 0.512}
    for prefix, factor in factors.items():
        named = {rate for name, rate in rates.items() if name.startswith(f"neurt.{prefix}")}
        assert list(named) == [pytest.approx(factor * 1e-4, rel=1e-12)]
    assert {rates["pooling_query"], rates["classifier.weight"], rates["classifier.bias"]} == {0.5}


def test_without_decay_all_layers_learn_alike_and_embeddings_never_faster_than_layers():
    rates = learning_rates(four_layers(), layer_decay=1.0)
    assert {rate for name, rate in rates.items() if name.startswith("neurt.")} == {1e-4}
    rates = learning_rates(four_layers(), layer_decay=0.5)
    assert rates["neurt.layers.0.mlp.fc1.weight"] == pytest.approx(1e-4 / 8)
    assert rates["neurt.embeddings.input_projection.weight"] == pytest.approx(1e-4 / 16)


def test_a_shared_layer_learns_at_the_full_rate():
    model = four_layers(share_layers=True)
    rates = learning_rates(model)
    assert rates.keys() == dict(model.named_parameters()).keys()
    assert rates["neurt.layers.0.mlp.fc1.weight"] == 1e-4
