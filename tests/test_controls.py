"""Models that must be explained otherwise, and whether there is anything to explain."""

import dataclasses

import numpy as np
import pytest
import torch
from neurt.explain import controls
from neurt.explain.controls import control_models, randomised, retrained_heads, shuffle_over_animals, tells_groups
from neurt.explain.explained import logits_of
from planted_windows import new_classifier, planted_windows, trained_classifier


@pytest.fixture(scope="module")
def windows():
    return planted_windows(animals=4, neurons=4).windows


def heads_of(model):
    return torch.cat([model.pooling_query, model.classifier.weight.flatten(), model.classifier.bias]).detach()


def test_random_weights_are_new_in_encoder_and_head_and_the_same_for_the_same_seed():
    model, before = trained_classifier(), torch.random.get_rng_state()
    # Not the seed from which the model's training began: some weights get no gradient where no rate is given.
    fresh, again, other = randomised(model, 7), randomised(model, 7), randomised(model, 8)
    assert torch.equal(before, torch.random.get_rng_state())
    assert fresh.config.to_dict() == model.config.to_dict() and not fresh.training
    for name, weights in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], again.state_dict()[name])
        if weights.ndim > 1 or name == "pooling_query":
            assert not torch.equal(fresh.state_dict()[name], other.state_dict()[name])
            assert (fresh.state_dict()[name] - weights).abs().max() > 0.01


@pytest.mark.parametrize("classes, agreeing", [([0] * 4 + [1] * 4, {4}), ([0] * 3 + [1] * 3, {2, 3, 4})])
def test_shuffled_labels_say_nothing_of_the_true_ones(classes, agreeing):
    rng, classes = np.random.default_rng(0), np.array(classes)
    shuffled = [shuffle_over_animals(classes, rng) for _ in range(50)]
    assert {int(np.sum(each == classes)) for each in shuffled} == agreeing
    assert len({tuple(each) for each in shuffled}) > 5


def test_shuffled_labels_are_never_the_true_ones_and_never_all_the_same():
    rng, classes = np.random.default_rng(0), np.array([0, 2])
    assert all(shuffle_over_animals(classes, rng).tolist() == [2, 0] for _ in range(20))


def test_new_heads_learn_their_labels_and_leave_the_encoder_as_it_is(windows):
    model = trained_classifier()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    labels = np.array([windows.class_ids, 1 - windows.class_ids])
    # The animals are sorted by name, which is by number here.
    right, wrong = retrained_heads(model, windows, labels)
    for name, values in model.state_dict().items():
        assert torch.equal(values, before[name])
        if name.startswith("neurt."):
            assert torch.equal(right.state_dict()[name], values) and torch.equal(wrong.state_dict()[name], values)
    planted = windows.neuron_index < 2
    for head, classes in ((right, windows.classes), (wrong, 1 - windows.classes)):
        assert np.mean(logits_of(head, windows.inputs).argmax(1)[planted] == classes[planted]) > 0.9


def test_heads_trained_side_by_side_are_those_that_the_model_itself_would_learn(windows, monkeypatch):
    monkeypatch.setattr(controls, "TRAINING_STEPS", 5)
    # Animal 3 is left out, and animal 5 has half of its windows: three animals against four.
    some = windows[(windows.recording != 3) & ((windows.recording != 5) | (windows.start_frame == 0))]
    animals, model = np.unique(some.recording), trained_classifier()
    labels = np.array([some.class_ids[animals], [0, 1, 1, 0, 0, 0, 1]])
    found = retrained_heads(model, some, labels, seed=3)
    for place, label in enumerate(labels):
        expected = randomised(model, 3 + place)
        expected.neurt.load_state_dict(model.neurt.state_dict())
        head = [expected.pooling_query, *expected.classifier.parameters()]
        optimizer = torch.optim.Adam(head, controls.LEARNING_RATE)
        for _ in range(5):
            losses = []
            for name in (0, 1):
                own = [some[some.recording == animal].inputs for animal in animals[label == name]]
                each = [expected(**inputs, labels=torch.full((len(inputs["input_values"]),), name)) for inputs in own]
                losses.append(torch.stack([outputs.loss for outputs in each]).mean())
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
        torch.testing.assert_close(heads_of(found[place]), heads_of(expected), atol=1e-4, rtol=1e-4)


def test_control_models_are_random_shuffled_and_true(windows):
    found = control_models(trained_classifier(), windows)
    assert (len(found.randomised), len(found.relabelled), len(found.retrained)) == (8, 8, 4)
    starts = torch.stack([heads_of(model) for model in found.relabelled + found.retrained])
    assert len(torch.unique(starts, dim=0)) == 12
    planted = windows.neuron_index < 2
    for models, right in ((found.retrained, True), (found.relabelled, False)):
        decisions = np.stack([logits_of(model, windows.inputs).argmax(1) for model in models])
        assert (np.mean(decisions[:, planted] == windows.classes[planted]) > 0.8) == right


def test_a_trained_model_tells_the_groups_apart_and_random_weights_do_not(windows):
    found = tells_groups(trained_classifier(), windows)
    assert found.tells and found.probability > max(found.randomised)
    assert found.p_weights == 0.05 and found.p_labels <= 2 / 70
    assert found.sentence.startswith("The model tells the groups apart: it gives the true class of an animal")
    for seed in (100, 101, 102):
        assert not tells_groups(randomised(trained_classifier(), seed), windows).tells


def test_a_model_that_calls_the_groups_by_each_others_names_does_not_tell_them(windows):
    swapped = dataclasses.replace(windows, class_ids=1 - windows.class_ids)
    found = tells_groups(trained_classifier(), swapped)
    assert not found.tells and found.p_weights > 0.5 and found.p_labels > 0.9


def test_being_better_than_random_weights_is_not_enough(windows, monkeypatch):
    silent = new_classifier()
    torch.nn.init.zeros_(silent.classifier.weight)
    lucky = next(
        model
        for model in (randomised(silent, seed) for seed in range(200, 250))
        if tells_groups_of(model, windows, silent, monkeypatch).probability > 0.5
    )
    found = tells_groups_of(lucky, windows, silent, monkeypatch)
    assert found.p_weights == 0.05 < found.p_labels and not found.tells


def tells_groups_of(model, windows, copy, monkeypatch):
    """With the same model for each of the random ones."""
    with monkeypatch.context() as patched:
        patched.setattr(controls, "randomised", lambda model, seed: copy)
        return tells_groups(model, windows)


def test_fitting_the_labels_is_not_enough(windows, monkeypatch):
    # The copies do as well as the model: groups so different that random weights tell them apart.
    found = tells_groups_of(trained_classifier(), windows, trained_classifier(), monkeypatch)
    assert found.p_weights == 1 and found.p_labels <= 0.05 and not found.tells


def test_a_model_that_knows_nothing_is_not_praised_for_saying_so(windows):
    silent = new_classifier()
    torch.nn.init.zeros_(silent.classifier.weight)
    found = tells_groups(silent, windows)
    assert found.probability == 0.5 and found.p_labels == 1 and not found.tells


def test_animals_of_the_larger_class_do_not_weigh_more(windows):
    always_zero = new_classifier()
    torch.nn.init.zeros_(always_zero.classifier.weight)
    with torch.no_grad():
        always_zero.classifier.bias.copy_(torch.tensor([100.0, 0.0]))
    mostly_zero = windows[(windows.classes == 0) | (windows.recording == 1)]
    assert tells_groups(always_zero, mostly_zero).probability == pytest.approx(0.5)


def test_who_guesses_among_three_classes_is_right_in_a_third(windows):
    silent = new_classifier(num_labels=3)
    torch.nn.init.zeros_(silent.classifier.weight)
    found = tells_groups(silent, windows)  # of animals of two of them
    assert found.probability == pytest.approx(1 / 3) and "0.33 on average, 0.33 by guessing" in found.sentence


def test_too_few_animals_tell_nothing_and_one_class_cannot_be_asked(windows):
    found = tells_groups(trained_classifier(), windows[windows.recording < 4])
    assert not found.tells and found.sentence.endswith("With 4 animals no model could be shown to.")
    for unasked in (windows[windows.classes == 0], dataclasses.replace(windows, class_ids=None)):
        assert tells_groups(trained_classifier(), unasked) is None
        assert control_models(trained_classifier(), unasked).relabelled == ()
