"""Pooling weights and attention rollout, against hand-computed numbers, whole matrix products and the model itself."""

import numpy as np
import pytest
import torch
from neurt import NeurtConfig, NeurtForSequenceClassification
from neurt.explain import attention
from neurt.explain.attention import attention_rollout, eager_attention, pooling_attention, rollout
from neurt.explain.explained import ExplainedWindows

FRAMES, REAL = 40, 33
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "max_position_embeddings": FRAMES}
CONFIGS = {
    "as shipped": NeurtConfig(**SIZES, num_hidden_layers=2),
    "as published, layers shared": NeurtConfig.original(**SIZES, num_hidden_layers=3, share_layers=True),
    "all layers read": NeurtConfig(**SIZES, num_hidden_layers=3, readout="sum", readout_position="attention"),
}


def classifier(name):
    torch.manual_seed(0)
    return NeurtForSequenceClassification(CONFIGS[name]).eval()


@pytest.fixture(scope="module")
def windows():
    """Nine windows; the last is padded."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(9, FRAMES, dtype=torch.long)
    mask[-1, REAL:] = 0
    values = torch.randn(9, FRAMES, 5, generator=generator) * mask.unsqueeze(-1)
    return ExplainedWindows(
        inputs={"input_values": values, "attention_mask": mask},
        recording=np.zeros(9, int),
        recording_ids=("r",),
        subject_ids=("m",),
        class_ids=None,
        roi_ids=("a",) * 9,
        neuron_index=np.zeros(9, int),
        start_frame=np.arange(9) * FRAMES,
    )


def test_rollout_of_one_layer_by_hand():
    # Heads that look at the same and at the other frame: on average half each; with the identity, 3/4 and 1/4.
    heads = torch.stack([torch.eye(2), torch.eye(2).flip(0)]).unsqueeze(0)
    found = rollout([heads], torch.tensor([[1.0, 0.0]]), every_layer=False)
    assert found.tolist() == [[0.75, 0.25]]


def test_rollout_goes_through_the_last_layer_first():
    # The first layer copies frame 0 to all, the last copies frame 1 to all: pooled is frame 1 of the last layer.
    first, last = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    layers = [first[None, None], last[None, None]]
    # w A_2 = (0, 1) half identity, half layer: (0, 1); then row 1 of A_1: (1/2, 1/2).
    assert rollout(layers, torch.tensor([[0.0, 1.0]]), every_layer=False).tolist() == [[0.5, 0.5]]
    # The first layer, read as well, gives (1/2, 1/2) too; pooled from frame 0 it gives (1, 0), the last (3/4, 1/4).
    assert rollout(layers, torch.tensor([[1.0, 0.0]]), every_layer=True).tolist() == [[0.875, 0.125]]


def test_rollout_makes_rows_sum_to_one():
    halved = torch.full((1, 1, 2, 2), 0.25)  # as low precision or dropout might leave them
    # Rows (5/4, 1/4) and (1/4, 5/4), over 3/2.
    found = rollout([halved], torch.tensor([[1.0, 0.0]]), every_layer=False)
    np.testing.assert_allclose(found, [[5 / 6, 1 / 6]], rtol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_rollout_agrees_with_whole_matrix_products(name, windows):
    model = classifier(name)
    with eager_attention(model), torch.no_grad():
        outputs = model(**windows.inputs, output_attentions=True)
    mixing = [(each.mean(1).double().numpy() + np.eye(FRAMES)) / 2 for each in outputs.attentions]
    products = [mixing[0]]
    for layer in mixing[1:]:
        products.append(layer @ products[-1])
    product = np.mean(products, axis=0) if model.config.readout == "sum" else products[-1]
    expected = np.einsum("bt,bts->bs", outputs.pooling_weights.double().numpy(), product)
    found = attention_rollout(model, windows, np.zeros(9, int))
    assert found.shape == (9, FRAMES)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # A test that uniform maps would pass says little.
    assert np.abs(found - pooling_attention(model, windows, np.zeros(9, int))).max() > 0.01


@pytest.mark.parametrize("method", [pooling_attention, attention_rollout])
@pytest.mark.parametrize("name", CONFIGS)
def test_maps_sum_to_one_and_are_zero_at_padding(method, name, windows):
    found = method(classifier(name), windows, np.zeros(9, int))
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert (found >= 0).all() and not found[-1, REAL:].any() and found[-1, :REAL].all()


def test_pooling_attention_is_what_the_model_pools_by(windows):
    model = classifier("as shipped")
    with torch.no_grad():
        expected = model(**windows.inputs).pooling_weights
    np.testing.assert_allclose(pooling_attention(model, windows, np.zeros(9, int)), expected, atol=1e-6)


@pytest.mark.parametrize("method", [pooling_attention, attention_rollout])
def test_batches_change_nothing(method, windows, monkeypatch):
    model = classifier("as shipped")
    at_once = method(model, windows, np.zeros(9, int))
    two_windows = 2 * 2 * 2 * FRAMES**2
    monkeypatch.setattr(attention, "MOST_WEIGHTS", two_windows)
    np.testing.assert_allclose(method(model, windows, np.zeros(9, int)), at_once, atol=1e-6)


def test_no_more_attention_is_held_than_is_allowed(windows, monkeypatch):
    model, held = classifier("as shipped"), []
    model.register_forward_hook(lambda *_: held.append(sum(each.numel() for each in _[-1].attentions)))
    monkeypatch.setattr(attention, "MOST_WEIGHTS", 2 * 2 * 2 * FRAMES**2 + 1)
    attention_rollout(model, windows, np.zeros(9, int))
    assert len(held) == 5 and max(held) <= attention.MOST_WEIGHTS


def test_the_model_attends_as_before_afterwards_also_after_an_error(windows):
    model = classifier("as shipped")
    assert model.config._attn_implementation == "sdpa"
    attention_rollout(model, windows, np.zeros(9, int))
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(KeyError), eager_attention(model):
        assert model.config._attn_implementation == "eager"
        raise KeyError
    assert model.config._attn_implementation == "sdpa"
