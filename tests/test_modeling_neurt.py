"""What transformers expects of its own model classes, and what NEuRT promises about hidden values."""

import copy

import numpy as np
import pytest
import torch
from neurt import NeurtConfig, NeurtForMaskedSignalModeling, NeurtForSequenceClassification, NeurtModel
from neurt.layers_neurt import NeurtLayer, NeurtRotaryEmbedding, rotate
from neurt.signal_neurt import (
    fill_linearly,
    filling_error,
    masked_squared_error,
    visible_center_and_scale,
    visible_roughness,
)

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
MODELS = [NeurtModel, NeurtForMaskedSignalModeling, NeurtForSequenceClassification]
DEFAULT, ORIGINAL = NeurtConfig(), NeurtConfig.original()
VARIANTS = {
    "default": {},
    "zero filling": {"fill": "zero", "predict_correction": False, "standardize_windows": False},
    "standardised": {"fill": "zero", "predict_correction": False},
    "filled": {"predict_correction": False, "standardize_windows": False, "use_mask_indicator": False},
    "attention read-out": {"readout_position": "attention", "readout": "sum", "share_layers": True},
    "original": {name: value for name, value in vars(ORIGINAL).items() if value != getattr(DEFAULT, name)},
    "norm last": {"norm_first": False, "position_embedding_type": "learned"},
    "embedding norm": {"embedding_norm": True},
}


def make(cls=NeurtForMaskedSignalModeling, seed=0, **options):
    torch.manual_seed(seed)
    model = cls(NeurtConfig(**{**SMALL, **options})).eval()
    for parameter in model.parameters():  # so that nothing is zero by its initialisation
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def windows(batch=3, frames=20, channels=5, seed=1):
    return torch.rand(batch, frames, channels, generator=torch.Generator().manual_seed(seed))


def mask(batch=3, frames=20, channels=None, share=0.3, seed=2):
    shape = (batch, frames) if channels is None else (batch, frames, channels)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def main_output(model, **inputs):
    output = model(**inputs)
    return next(output[name] for name in ("reconstruction", "logits", "last_hidden_state") if name in output)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("channels", [None, 5], ids=["frames hidden", "channels hidden"])
@pytest.mark.parametrize("bad", [1e6, float("nan")])
@pytest.mark.parametrize("cls", MODELS)
def test_hidden_values_change_no_output(cls, variant, channels, bad):
    model, values, hidden = make(cls, **VARIANTS[variant]), windows(), mask(channels=channels)
    spoiled = values.clone()
    spoiled[hidden] = bad
    expected = main_output(model, input_values=values, bool_masked_pos=hidden)
    assert torch.equal(main_output(model, input_values=spoiled, bool_masked_pos=hidden), expected)
    assert expected.isfinite().all()


def test_hidden_values_change_neither_loss_nor_gradient_when_labels_are_given():
    values, hidden = windows(), mask()
    gradients = []
    for spoil in (False, True):
        model, inputs = make(), values.clone()
        if spoil:
            inputs[hidden] = float("nan")
        model(input_values=inputs, bool_masked_pos=hidden, labels=values).loss.backward()
        gradients.append(model.neurt.embeddings.input_projection.weight.grad)
    assert torch.equal(*gradients)


def test_a_hidden_frame_differs_from_a_silent_one_by_the_indicator():
    model = make(fill="zero", predict_correction=False, standardize_windows=False)
    values, hidden = windows(), torch.zeros(3, 20, dtype=torch.bool)
    hidden[:, 5] = True
    values[:, 5] = 0
    silent = model(input_values=values).reconstruction
    assert not torch.allclose(model(input_values=values, bool_masked_pos=hidden).reconstruction, silent)


def test_the_original_cannot_tell_a_hidden_frame_from_a_silent_one():
    torch.manual_seed(0)
    model = NeurtForMaskedSignalModeling(NeurtConfig.original(**SMALL)).eval()
    values, hidden = windows(), mask()
    silent = values.masked_fill(hidden.unsqueeze(-1), 0)
    assert torch.equal(
        model(input_values=values, bool_masked_pos=hidden).reconstruction, model(input_values=silent).reconstruction
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_padding_changes_no_real_frame(cls, variant, implementation):
    model = make(cls, **VARIANTS[variant])
    model.set_attn_implementation(implementation)
    values, hidden = windows(), mask()
    padded = torch.cat([values, torch.full((3, 7, 5), float("nan"))], dim=1)
    padded_hidden = torch.cat([hidden, torch.ones(3, 7, dtype=torch.bool)], dim=1)
    attention_mask = torch.cat([torch.ones(3, 20), torch.zeros(3, 7)], dim=1).long()
    expected = main_output(model, input_values=values, bool_masked_pos=hidden)
    output = main_output(model, input_values=padded, attention_mask=attention_mask, bool_masked_pos=padded_hidden)
    if cls is not NeurtForSequenceClassification:
        output = output[:, :20]
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cls", MODELS)
def test_a_window_gives_the_same_output_alone_and_in_a_batch(cls):
    model, values, hidden = make(cls), windows(), mask()
    together = main_output(model, input_values=values, bool_masked_pos=hidden)
    alone = [main_output(model, input_values=values[i : i + 1], bool_masked_pos=hidden[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("padded", [False, True])
def test_eager_and_sdpa_attention_agree(cls, padded):
    model, values = make(cls), windows()
    attention_mask = torch.ones(3, 20).long()
    if padded:
        attention_mask[0, 12:] = 0
    outputs = []
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        outputs.append(main_output(model, input_values=values, attention_mask=attention_mask))
    if cls is not NeurtForSequenceClassification:
        outputs = [output[attention_mask.bool()] for output in outputs]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("share_layers", [False, True])
def test_hidden_states_and_attentions_of_every_layer_are_recorded(cls, share_layers):
    model = make(cls, num_hidden_layers=3, share_layers=share_layers)
    model.set_attn_implementation("eager")
    output = model(input_values=windows(), output_hidden_states=True, output_attentions=True)
    assert [state.shape for state in output.hidden_states] == [(3, 20, 16)] * 4
    assert [attention.shape for attention in output.attentions] == [(3, 4, 20, 20)] * 3
    torch.testing.assert_close(output.attentions[1].sum(-1), torch.ones(3, 4, 20))
    assert not torch.equal(output.attentions[0], output.attentions[2])


@pytest.mark.parametrize("norm_first", [False, True])
def test_read_outs_are_the_sums_or_the_last_of_the_layers_outputs(norm_first):
    values = windows()
    model = make(NeurtModel, readout="sum", norm_first=norm_first)
    layers = []
    for layer in model.layers:
        layer.register_forward_hook(lambda module, inputs, output: layers.append(output[0]))
    output = model(input_values=values)
    normed = model.norm if norm_first else lambda states: states
    torch.testing.assert_close(output.embeddings, normed(sum(layers)))
    assert torch.equal(output.last_hidden_state, normed(layers[-1]))
    model.config.readout = "last"
    assert torch.equal(model(input_values=values).embeddings, output.last_hidden_state)


def test_layers_that_add_nothing_return_their_input_where_the_norm_comes_first_and_its_norm_where_it_comes_last():
    states = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(3))
    for norm_first in (True, False):
        layer = NeurtLayer(NeurtConfig(**SMALL, norm_first=norm_first, position_embedding_type="learned"))
        for module in (layer.attention.o_proj, layer.mlp.fc2):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
        layer.config._attn_implementation = "eager"
        expected = states if norm_first else torch.nn.functional.layer_norm(states, (16,), eps=1e-12)
        torch.testing.assert_close(layer(states)[0], expected)


def test_rotary_angles_multiply_complex_numbers_and_only_distances_between_frames_count():
    config = NeurtConfig(**SMALL, rope_theta=100.0)
    cos, sin = NeurtRotaryEmbedding(config)(12, torch.device("cpu"))
    # Heads of four numbers hold two complex ones, which turn by 1 and by 100 ** -(1/2) = 0.1 a frame.
    query, key = torch.randn(2, 1, 1, 12, 4, generator=torch.Generator().manual_seed(3))
    turned = rotate(query, cos, sin)
    numbers = torch.complex(query[..., :2], query[..., 2:])
    angles = torch.arange(12.0).view(-1, 1) * torch.tensor([1.0, 0.1])
    expected = numbers * torch.exp(1j * angles)
    torch.testing.assert_close(torch.complex(turned[..., :2], turned[..., 2:]), expected)
    same = torch.ones(1, 1, 12, 1)
    scores = rotate(query[:, :, :1] * same, cos, sin) @ rotate(key[:, :, :1] * same, cos, sin).transpose(2, 3)
    for distance in (-3, 0, 5):
        diagonal = scores[0, 0].diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))


def test_the_input_convolution_joins_as_many_frames_as_it_says():
    embeddings = make(input_kernel_size=5).neurt.embeddings
    values, hidden = windows(batch=1), torch.zeros(1, 20, 5, dtype=torch.bool)
    level = torch.zeros(1, 1, 5), torch.ones(1, 1, 5)
    changed = values.clone()
    changed[0, 10, 0] += 1
    difference = (embeddings(changed, hidden, *level) - embeddings(values, hidden, *level)).abs().sum(-1)[0]
    assert difference.nonzero().flatten().tolist() == [8, 9, 10, 11, 12]


@pytest.mark.parametrize("cls", MODELS)
def test_output_is_deterministic_and_survives_saving_and_loading(cls, tmp_path):
    model, values, hidden = make(cls), windows(), mask()
    expected = main_output(model, input_values=values, bool_masked_pos=hidden)
    assert torch.equal(main_output(model, input_values=values, bool_masked_pos=hidden), expected)
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    for options in ({}, {"low_cpu_mem_usage": True}, {"device_map": "cpu"}):
        loaded = cls.from_pretrained(tmp_path, **options).eval()
        assert torch.equal(main_output(loaded, input_values=values, bool_masked_pos=hidden), expected)


def test_a_model_made_on_the_meta_device_loads_its_weights(tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    with torch.device("meta"):
        empty = NeurtForMaskedSignalModeling(model.config)
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
    empty.load_state_dict(NeurtForMaskedSignalModeling.from_pretrained(tmp_path).state_dict(), assign=True)
    assert torch.equal(empty(input_values=windows()).reconstruction, model(input_values=windows()).reconstruction)


def test_mismatched_sizes_are_refused_or_made_anew_on_request(tmp_path):
    make(NeurtForSequenceClassification, num_labels=2).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatch"):
        NeurtForSequenceClassification.from_pretrained(tmp_path, num_labels=4)
    loaded = NeurtForSequenceClassification.from_pretrained(tmp_path, num_labels=4, ignore_mismatched_sizes=True)
    assert loaded(input_values=windows()).logits.shape == (3, 4)


def test_a_classifier_takes_the_encoder_of_a_pretrained_model(tmp_path):
    pretrained = make()
    pretrained.save_pretrained(tmp_path)
    classifier = NeurtForSequenceClassification.from_pretrained(tmp_path).eval()
    values = windows()
    torch.testing.assert_close(
        classifier.neurt(input_values=values).embeddings, pretrained.neurt(input_values=values).embeddings
    )
    assert classifier.pooling_query.std() > 0.3  # standard normal, not left empty


def test_every_parameter_gets_a_gradient():
    inputs = {"input_values": windows(), "bool_masked_pos": mask(), "sampling_rate": torch.tensor([5.0, 10.0, 30.0])}
    for cls, labels in (
        (NeurtForMaskedSignalModeling, None),
        (NeurtForSequenceClassification, torch.tensor([0, 1, 1])),
    ):
        model = make(cls)
        model(**inputs, **({} if labels is None else {"labels": labels})).loss.backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_gradient_checkpointing_changes_no_gradient():
    plain = make().train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.gradient_checkpointing_enable()
    assert checkpointed.is_gradient_checkpointing
    for model in (plain, checkpointed):
        model(input_values=windows(), bool_masked_pos=mask()).loss.backward()
    for expected, parameter in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad)


@pytest.mark.parametrize("cls", MODELS)
def test_bfloat16_gives_finite_outputs_near_those_of_float32(cls):
    model, values, hidden = make(cls), windows(), mask()
    expected = main_output(model, input_values=values, bool_masked_pos=hidden)
    output = main_output(model.to(torch.bfloat16), input_values=values, bool_masked_pos=hidden)
    assert (output.float() - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("cls", MODELS)
def test_the_compiled_model_is_one_graph_and_agrees(cls):
    model, values, hidden = make(cls), windows(), mask()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        main_output(compiled, input_values=values, bool_masked_pos=hidden),
        main_output(model, input_values=values, bool_masked_pos=hidden),
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize("cls", MODELS)
def test_the_exported_program_agrees(cls):
    model, inputs = make(cls), {"input_values": windows(), "bool_masked_pos": mask()}
    exported = torch.export.export(model, (), kwargs=inputs, strict=False).module()
    torch.testing.assert_close(main_output(exported, **inputs), main_output(model, **inputs))


def test_tuples_are_returned_on_request():
    model, values = make(), windows()
    assert torch.equal(model(input_values=values, return_dict=False)[0], model(input_values=values).reconstruction)


@pytest.mark.parametrize("cls", MODELS)
def test_the_input_embeddings_are_the_input_projection(cls):
    model = make(cls)
    assert model.get_input_embeddings() is model.base_model.embeddings.input_projection


def test_the_plain_loss_is_the_mean_squared_error_over_hidden_real_values():
    model, values, hidden = make(relative_loss=False), windows(), mask()
    attention_mask = torch.ones(3, 20).long()
    attention_mask[2, 15:] = 0
    output = model(input_values=values, bool_masked_pos=hidden, attention_mask=attention_mask)
    scored = hidden & attention_mask.bool()
    expected = (output.reconstruction - values)[scored].square().mean()
    torch.testing.assert_close(output.loss, expected)


def test_the_relative_loss_of_a_model_that_only_fills_is_one_whatever_the_noise():
    model = NeurtForMaskedSignalModeling(NeurtConfig(**SMALL)).eval()  # untrained, it interpolates
    values, hidden = windows() * torch.tensor([1.0, 0.5, 2.0, 3.0, 0.4]), mask(share=0.5)
    # In windows so short that nothing lies as far from a hidden frame as the error nearby is taken.
    loss = model(input_values=values[:, :11], bool_masked_pos=hidden[:, :11]).loss
    assert loss.item() == pytest.approx(1, rel=0.01)  # but for what keeps the unit above 0


def test_the_unit_of_the_relative_loss_is_the_error_of_filling_or_a_share_of_the_spread():
    targets = torch.tensor([0.0, 1.0, 4.0, 3.0]).view(1, 4, 1).repeat(1, 1, 2)
    filled = torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 4.0, 3.0]]).T.unsqueeze(0)
    real = scored = torch.ones(1, 4, 2, dtype=torch.bool)
    scored = scored.clone()
    scored[:, [0, 3]] = False
    # Errors of 0 and 2 over the two scored frames; no error, hence a tenth of the standard deviation, the root of 2.5.
    first, second = (2 + 9e-6) ** 0.5, (0.025 + 9e-6) ** 0.5
    unit = filling_error(filled, targets, real, scored)
    torch.testing.assert_close(unit, torch.tensor([first, second]).view(1, 1, 2))
    torch.testing.assert_close(masked_squared_error(filled, targets, scored, unit=unit), torch.tensor(1 / first**2))


def test_where_a_gap_is_silent_by_chance_the_unit_is_the_error_of_filling_visible_frames_nearby():
    targets, scored = torch.zeros(1, 24, 1), torch.zeros(1, 24, 1, dtype=torch.bool)
    targets[0, [12, 20], 0] = torch.tensor([6.0, 50.0])
    scored[:, 1] = True
    unit = filling_error(torch.zeros(1, 24, 1), targets, torch.ones_like(scored), scored)
    assert unit.item() == pytest.approx((36 + 9e-6) ** 0.5)  # frame 12, eleven later, between zeros
    hidden_nearby = scored.clone()
    hidden_nearby[:, 12] = True
    filled = targets * ~hidden_nearby
    unit = filling_error(filled, targets, torch.ones_like(scored), hidden_nearby)
    assert unit.item() == pytest.approx((18 + 9e-6) ** 0.5)  # what is hidden is no longer nearby, but an error here


def test_roughness_is_how_far_visible_frames_lie_from_the_mean_of_their_neighbours():
    values = torch.tensor([0.0, 2.0, 0.0, 9.0, 0.0, 4.0, 0.0]).view(1, 7, 1)
    visible = torch.tensor([1, 1, 1, 0, 1, 1, 1]).bool().view(1, 7, 1)
    # Two visible triples, 2 and 4 above their neighbours.
    torch.testing.assert_close(visible_roughness(values, visible), torch.full((1, 1, 1), 10**0.5))
    assert visible_roughness(values, torch.zeros_like(visible)).item() == 1
    assert visible_roughness(torch.arange(7.0).view(1, 7, 1), torch.ones_like(visible)).item() == pytest.approx(0.01)


def test_corrections_are_small_where_lines_are_nearly_right():
    model = make()
    model.decoder.weight.data.zero_()
    model.decoder.bias.data.fill_(1.0)
    phase = torch.linspace(0, 6.28, 60)
    hidden = torch.zeros(1, 60, 5, dtype=torch.bool)
    hidden[:, 30] = True
    size = {}
    for name, period in (("slow", 1), ("fast", 15)):
        values = torch.sin(period * phase).view(1, -1, 1).repeat(1, 1, 5)
        filled = fill_linearly(values.masked_fill(hidden, 0), ~hidden)
        correction = (model(input_values=values, bool_masked_pos=hidden).reconstruction - filled)[0, 30, 0]
        # (sin(x + d) + sin(x - d)) / 2 = sin(x) cos(d): a frame lies 1 - cos(d) of itself from its neighbours' mean.
        bend = 1 - np.cos(period * 6.28 / 59)
        size[name] = correction.item() / max(bend, 0.01) ** 0.5
    # In units of the root of spread times roughness, where the spread is the sine's, the root of a half.
    assert size["slow"] == pytest.approx(size["fast"], rel=0.1)
    assert size["fast"] == pytest.approx(0.5**0.5, rel=0.05)


def test_labels_replace_the_target_and_nan_is_never_scored():
    model, values, hidden = make(relative_loss=False), windows(), mask(channels=5)
    labels = values + 1
    labels[..., 3:] = float("nan")
    output = model(input_values=values, bool_masked_pos=hidden, labels=labels)
    errors = (output.reconstruction - values - 1)[..., :3][hidden[..., :3]]
    torch.testing.assert_close(output.loss, errors.square().mean())


def test_without_a_mask_there_is_no_loss_and_with_an_empty_one_it_is_zero():
    model, values = make(), windows()
    assert model(input_values=values, labels=values).loss is None
    assert model(input_values=values, bool_masked_pos=torch.zeros(3, 20, dtype=torch.bool)).loss == 0


def test_pieces_divided_by_the_global_count_add_up_to_the_loss_of_the_batch():
    model, values, hidden = make(), windows(), mask()
    whole = model(input_values=values, bool_masked_pos=hidden).loss
    count = hidden.sum() * 5
    pieces = [
        model(input_values=values[i], bool_masked_pos=hidden[i], num_items_in_batch=count).loss
        for i in (slice(0, 1), slice(1, 3))
    ]
    torch.testing.assert_close(sum(pieces), whole)


def test_straight_lines_are_drawn_between_visible_values_and_the_nearest_stands_at_the_ends():
    values = torch.tensor([0.0, 0.0, 2.0, 0.0, 0.0, 8.0, 0.0]).view(1, -1, 1)
    visible = torch.tensor([0, 0, 1, 0, 0, 1, 0]).bool().view(1, -1, 1)
    assert fill_linearly(values, visible).flatten().tolist() == [2, 2, 2, 4, 6, 8, 8]
    assert fill_linearly(values, torch.zeros_like(visible)).flatten()[0] == 0


def test_center_and_scale_are_taken_over_visible_values_with_stated_fallbacks():
    values = torch.tensor([[1.0, 5.0, 0.0], [3.0, 5.0, 0.0], [0.0, 5.0, 0.0]]).view(1, 3, 3)
    visible = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 1, 0]]).bool().view(1, 3, 3)
    center, scale = visible_center_and_scale(values, visible)
    # In quadrature a deviation of 1 or 0, a tenth of the largest, which is 1, and 0.001; nothing visible, hence the
    # mean of the others.
    first, second = (1 + 0.01 + 1e-6) ** 0.5, (0 + 0.01 + 1e-6) ** 0.5
    assert center.flatten().tolist() == [2, 5, 3.5]
    assert scale.flatten().tolist() == pytest.approx([first, second, (first + second) / 2])
    center, scale = visible_center_and_scale(values, torch.zeros_like(visible))
    assert center.flatten().tolist() == [0, 0, 0]
    assert scale.flatten().tolist() == [1, 1, 1]


def test_an_untrained_model_that_predicts_corrections_interpolates():
    model = NeurtForMaskedSignalModeling(NeurtConfig(**SMALL)).eval()
    values = torch.linspace(0, 1, 20).view(1, 20, 1) * torch.tensor([1.0, 2.0, 3.0, -1.0, 0.5])
    hidden = torch.zeros(1, 20, dtype=torch.bool)
    hidden[0, 4:9] = True
    torch.testing.assert_close(model(input_values=values, bool_masked_pos=hidden).reconstruction, values)


def test_reconstructions_come_back_in_the_scale_of_the_input():
    model, values, hidden = make(), 100 * windows() - 7, mask()
    torch.nn.init.zeros_(model.decoder.weight)
    torch.nn.init.zeros_(model.decoder.bias)
    visible = ~hidden.unsqueeze(-1).expand_as(values)
    filled = fill_linearly(values.masked_fill(~visible, 0), visible)
    torch.testing.assert_close(model(input_values=values, bool_masked_pos=hidden).reconstruction, filled)


@pytest.mark.parametrize("change", [lambda values: values + 0.3, lambda values: values * 2])
def test_a_classifier_of_standardised_windows_still_knows_their_level_and_spread(change):
    model, values = make(NeurtForSequenceClassification), windows()
    difference = model(input_values=change(values)).logits - model(input_values=values).logits
    assert difference.abs().max() > 1e-5  # rounding alone gives 1e-7


@pytest.mark.parametrize("cls", MODELS)
def test_the_sampling_rate_counts_and_a_missing_one_means_the_default(cls):
    model, values = make(cls, default_sampling_rate=8.0), windows()
    expected = main_output(model, input_values=values)
    for absent in (torch.full((3,), 8.0), torch.full((3,), float("nan"))):
        assert torch.equal(main_output(model, input_values=values, sampling_rate=absent), expected)
    mixed = main_output(model, input_values=values, sampling_rate=torch.tensor([8.0, 30.0, float("nan")]))
    assert torch.equal(mixed[[0, 2]], expected[[0, 2]]) and not torch.allclose(mixed[1], expected[1])
    model = make(cls, use_sampling_rate=False)
    assert torch.equal(
        main_output(model, input_values=values, sampling_rate=torch.full((3,), 30.0)),
        main_output(model, input_values=values),
    )


def test_a_window_of_padding_alone_gives_finite_logits():
    model, attention_mask = make(NeurtForSequenceClassification), torch.ones(3, 20).long()
    attention_mask[1] = 0
    assert model(input_values=windows(), attention_mask=attention_mask).logits.isfinite().all()


def test_pooling_weights_sum_to_one_and_are_zero_on_padding():
    model, attention_mask = make(NeurtForSequenceClassification), torch.ones(3, 20).long()
    attention_mask[1, 8:] = 0
    weights = model(input_values=windows(), attention_mask=attention_mask).pooling_weights
    torch.testing.assert_close(weights.sum(-1), torch.ones(3))
    assert (weights[1, 8:] == 0).all() and (weights[1, :8] > 0).all()


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "labels", "loss"),
    [
        (None, 3, torch.tensor([0, 2, 1]), torch.nn.functional.cross_entropy),
        (None, 1, torch.tensor([0.5, -1.0, 2.0]), torch.nn.functional.mse_loss),
        (
            "multi_label_classification",
            2,
            torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]),
            torch.nn.functional.binary_cross_entropy_with_logits,
        ),
    ],
)
def test_the_problem_type_chooses_the_loss(problem_type, num_labels, labels, loss):
    model = make(NeurtForSequenceClassification, num_labels=num_labels, problem_type=problem_type)
    output = model(input_values=windows(), labels=labels)
    torch.testing.assert_close(output.loss, loss(output.logits.squeeze(-1), labels))


def test_windows_of_the_wrong_shape_are_refused_in_words():
    model = make(max_position_embeddings=16)
    with pytest.raises(ValueError, match="at most 16 frames, 5 channels.*got .3, 20, 5."):
        model(input_values=windows())
    with pytest.raises(ValueError, match="5 channels"):
        model(input_values=windows(frames=10, channels=4))


def test_weights_start_as_in_the_original():
    model = NeurtForSequenceClassification(NeurtConfig.original())
    projection = model.neurt.layers[0].mlp.fc1
    bound = (6 / (128 + 512)) ** 0.5  # Xavier uniform
    assert 0.95 * bound < projection.weight.abs().max() <= bound
    assert (projection.bias == 0).all()
    assert 0.7 < model.pooling_query.std() < 1.3
    masked = NeurtForMaskedSignalModeling(NeurtConfig.original())
    assert masked.num_parameters() == 860_293
