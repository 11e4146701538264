"""Which explanations pass and which fail, where it is known which frames matter."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from neurt.explain.attention import attention_rollout, pooling_attention
from neurt.explain.attribution import frame_ablation, integrated_gradients
from neurt.explain.controls import Groups, randomised
from neurt.explain.curves import SHARES, Estimate, turned
from neurt.explain.explained import log_odds
from neurt.explain.faithfulness import (
    ALIKE,
    AS_GOOD,
    EXPLANATION,
    NO_GROUPS,
    OTHER_SEEDS,
    RANDOM,
    RANDOM_WEIGHTS,
    SHUFFLED_LABELS,
    TURNED,
    judge,
    make_verdict,
    mean_correlation,
    open_trial,
    rank_correlation,
)
from planted_windows import planted_windows, trained_classifier
from scipy.stats import spearmanr

TELLS = Groups(True, 0.9, (0.5,), 0.05, 0.01, "")


@pytest.fixture(scope="module")
def planted():
    return planted_windows(animals=4, neurons=6)


@pytest.fixture(scope="module")
def trial(planted):
    return open_trial(trained_classifier(), planted.windows)


@pytest.fixture(scope="module")
def few():
    """Windows of as many animals, two of a planted neuron and two of another one of each."""
    return planted_windows(animals=4, neurons=2).windows


def gradient(model, windows, targets):
    """Gradient times input, the cheapest map that looks into a model."""
    values = windows.inputs["input_values"].clone().requires_grad_()
    logits = model(**{**windows.inputs, "input_values": values}).logits
    (slope,) = torch.autograd.grad(log_odds(logits, torch.as_tensor(targets)).sum(), values)
    return (slope * values).sum(-1).detach().numpy() * windows.real


def noise(model, windows, targets):
    return np.random.default_rng([len(windows), 5]).random(windows.real.shape)


def test_a_map_of_the_planted_frames_passes_where_the_model_has_learnt_them(planted, trial):
    def oracle(model, windows, targets):
        return planted.frames if model is trial.model else noise(model, windows, targets)

    verdict = judge(trial, oracle)
    assert verdict.faithful and verdict.tested and not verdict.reasons
    assert verdict.stamp == "faithful"
    assert set(verdict.areas) == {RANDOM, TURNED, RANDOM_WEIGHTS, SHUFFLED_LABELS}
    assert all(area.low > 0.2 for area in verdict.areas.values())
    assert all(area.low > 0 for area in verdict.insertion_areas.values())
    assert (verdict.num_windows, verdict.num_subjects) == (96, 8)
    # Curves of all orders begin at the unharmed windows.
    explained, at_random = (np.array([p.mean for p in verdict.deletion[name]]) for name in (EXPLANATION, RANDOM))
    assert explained[0] == pytest.approx(at_random[0]) and (explained[1:] < at_random[1:]).all()


def test_a_map_that_looks_into_the_model_passes(trial):
    verdict = judge(trial, gradient)
    assert verdict.faithful
    assert verdict.alike[SHUFFLED_LABELS].high < 0.5 and verdict.alike[RANDOM_WEIGHTS].high < 0.5
    assert verdict.alike[SHUFFLED_LABELS].high < verdict.alike[OTHER_SEEDS].low < 0.9


def test_all_control_models_take_turns(trial):
    asked = {}

    def spy(model, windows, targets):
        asked[id(model)] = asked.get(id(model), 0) + len(windows)
        return noise(model, windows, targets)

    judge(trial, spy)
    controls = trial.controls
    shares = {id(trial.model): 96} | {id(model): 12 for model in controls.randomised + controls.relabelled}
    # Every other window is asked about twice for stability, by 4 heads.
    assert asked == shares | {id(model): 24 for model in controls.retrained}


def test_a_random_map_fails(trial):
    assert AS_GOOD[RANDOM] in judge(trial, noise).reasons


def test_a_map_turned_in_time_fails(trial):
    def elsewhere(model, windows, targets):
        return turned(gradient(model, windows, targets), windows.real, seed=7)

    assert not judge(trial, elsewhere).faithful


def test_a_map_of_random_weights_fails(trial):
    other = randomised(trial.model, 99)
    verdict = judge(trial, lambda model, windows, targets: gradient(other, windows, targets))
    assert not verdict.faithful and AS_GOOD[RANDOM_WEIGHTS] in verdict.reasons


def test_a_map_that_is_right_without_looking_into_the_model_fails(planted, trial):
    def size_of_trace(model, windows, targets):
        return windows.inputs["input_values"][..., 0].abs().numpy()

    verdict = judge(trial, size_of_trace)
    assert verdict.areas[RANDOM].low > 0 and verdict.areas[TURNED].low > 0
    assert verdict.reasons == (
        AS_GOOD[RANDOM_WEIGHTS],
        AS_GOOD[SHUFFLED_LABELS],
        ALIKE[RANDOM_WEIGHTS],
        ALIKE[SHUFFLED_LABELS],
    )
    assert verdict.areas[RANDOM_WEIGHTS] == Estimate(0, 0, 0) and verdict.alike[SHUFFLED_LABELS].mean == pytest.approx(
        1
    )


def test_the_constant_map_of_a_pooling_without_a_query_fails(trial):
    def without_query(model, windows, targets):
        model = copy.deepcopy(model)
        torch.nn.init.zeros_(model.pooling_query)
        return pooling_attention(model, windows, targets)

    verdict = judge(trial, without_query)
    assert AS_GOOD[RANDOM] in verdict.reasons and verdict.areas[TURNED] == Estimate(0, 0, 0)
    assert verdict.alike[OTHER_SEEDS].mean == 0  # it puts nothing in any order


def test_every_explanation_of_random_weights_fails(few):
    trial = open_trial(randomised(trained_classifier(), 100), few)
    methods = (gradient, integrated_gradients, frame_ablation, pooling_attention, attention_rollout)
    verdicts = {method.__name__: judge(trial, method) for method in methods}
    assert all(verdict.stamp == f"not faithful: {NO_GROUPS}" for verdict in verdicts.values())
    # By the curves alone these would have passed: they are true of a function that means nothing.
    assert verdicts["integrated_gradients"].areas[RANDOM].low > 0


def test_every_explanation_fails_where_the_labels_are_swapped(few):
    windows = dataclasses.replace(few, class_ids=1 - few.class_ids)
    assert judge(open_trial(trained_classifier(), windows), gradient).reasons == (NO_GROUPS,)


def test_without_two_classes_or_three_animals_nothing_passes(few):
    unlabelled = dataclasses.replace(few, class_ids=None)
    verdict = judge(open_trial(trained_classifier(), unlabelled), gradient)
    assert not verdict.faithful and not verdict.tested
    assert verdict.stamp == "not tested: there are no two classes of animals"
    assert set(verdict.areas) == {RANDOM, TURNED, RANDOM_WEIGHTS} and OTHER_SEEDS not in verdict.alike

    verdict = judge(open_trial(trained_classifier(), unlabelled[few.recording < 2]), gradient)
    assert verdict.reasons == ("there are fewer than 3 animals", "there are no two classes of animals")
    assert verdict.areas[RANDOM].low is None and verdict.num_subjects == 2


def test_a_map_of_another_shape_is_refused(trial):
    with pytest.raises(ValueError, match="expected a finite importance"):
        judge(trial, lambda model, windows, targets: np.zeros((len(windows), 3)))


def test_a_verdict_can_be_written_as_json(trial):
    verdict = judge(trial, noise)
    told = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert told["stamp"] == verdict.stamp == f"not faithful: {AS_GOOD[RANDOM]}"
    assert told["sentence"].startswith(told["stamp"]) and "8 animals" in told["sentence"]
    assert told["areas"][RANDOM].keys() == {"mean", "low", "high"}
    assert len(told["deletion"][EXPLANATION]) == len(told["shares"]) == len(SHARES)


def curves(**levels):
    """Curves of four animals that lie at a constant level, and a little apart."""
    names = {"explanation": EXPLANATION, "random": RANDOM, "turned": TURNED}
    animals = 0.01 * np.arange(4)[:, None] * (np.array(list(levels)) != "explanation")
    return {
        names[name]: np.full((4, len(SHARES)), level) + animals[:, [place]]
        for place, (name, level) in enumerate(levels.items())
    }


def test_deletion_decides_against_every_control_and_insertion_does_not():
    subjects, low = np.array(list("abcd")), curves(explanation=0.0, random=1.0, turned=1.0)
    high = curves(explanation=1.0, random=2.0, turned=2.0)
    alike = {RANDOM_WEIGHTS: Estimate(0.1, 0.0, 0.2)}
    verdict = make_verdict(low, high, alike, subjects, groups=TELLS, unit="frames")
    assert verdict.faithful and verdict.areas[RANDOM].mean == pytest.approx(1.015)
    assert verdict.insertion_areas[RANDOM].mean == pytest.approx(-1.015)
    one = curves(explanation=0.0, random=1.0, turned=-0.5)
    verdict = make_verdict(one, high, alike, subjects, groups=TELLS, unit="frames")
    assert verdict.stamp == f"not faithful: {AS_GOOD[TURNED]}"
    assert "takes -0.48 (95 % interval -0.51 to -0.46) log-odds more" in verdict.sentence
    assert verdict.sentence.endswith("than the best of its controls, turned in time; 4 animals.")


def test_the_whole_interval_decides_and_not_the_mean():
    levels = curves(explanation=0.0, random=1.0)
    levels[RANDOM][0] = -1.0  # one animal of four
    verdict = make_verdict(levels, {}, {}, np.array(list("abcd")), groups=TELLS, unit="frames")
    assert verdict.areas[RANDOM].mean > 0.5 > 0 > verdict.areas[RANDOM].low
    assert verdict.reasons == (AS_GOOD[RANDOM],)


def test_the_interval_of_correlations_ends_where_they_do():
    assert mean_correlation(np.array([1.0, 1.0, -1.0]), np.arange(3)) == Estimate(pytest.approx(1 / 3), -1, 1)
    assert mean_correlation(np.array([1.0, 0.0]), np.arange(2)) == Estimate(0.5, None, None)
    assert np.isnan(mean_correlation(np.full(3, np.nan), np.arange(3)).high)


def test_what_is_not_a_number_passes_nothing():
    low, subjects = curves(explanation=0.0, random=1.0), np.array(list("abcd"))
    nothing = {RANDOM_WEIGHTS: Estimate(np.nan, np.nan, np.nan)}
    assert make_verdict(low, {}, nothing, subjects, groups=TELLS, unit="frames").reasons == (ALIKE[RANDOM_WEIGHTS],)
    low[RANDOM][0, 3] = np.nan
    assert make_verdict(low, {}, {}, subjects, groups=TELLS, unit="frames").reasons == (AS_GOOD[RANDOM],)


def test_a_map_that_does_not_change_with_weights_or_labels_fails():
    low = curves(explanation=0.0, random=1.0, turned=1.0)
    for name, reason in ALIKE.items():
        alike = {OTHER_SEEDS: Estimate(0.9, 0.8, 1.0), name: Estimate(0.4, 0.2, 0.6)}
        verdict = make_verdict(low, {}, alike, np.array(list("abcd")), groups=TELLS, unit="frames")
        assert verdict.reasons == (reason,)


def test_rank_correlations_are_those_of_scipy_over_real_frames():
    rng, real = np.random.default_rng(0), np.arange(20) < np.array([[20], [13], [20]])
    first, second = rng.integers(0, 6, (3, 20)).astype(float), rng.normal(size=(3, 20))
    second[2] = 1.0  # constant
    found = rank_correlation(first, second, real)
    expected = [spearmanr(first[row, real[row]], second[row, real[row]]).statistic for row in range(2)]
    assert found.tolist() == pytest.approx([*expected, 0.0])
