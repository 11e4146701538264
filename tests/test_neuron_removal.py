"""Neurons removed from recordings, where it is known which of them tell the classes apart."""

import numpy as np
import pytest
from neurt import NeurtProcessor
from neurt.dataset_scripts.recording import Recording
from neurt.dataset_scripts.windows import WindowDataset
from neurt.explain.attribution import neuron_importance
from neurt.explain.controls import Groups
from neurt.explain.curves import SHARES
from neurt.explain.explained import gather, log_odds_of
from neurt.explain.faithfulness import AS_GOOD, EXPLANATION, NO_GROUPS, RANDOM_NEURONS
from neurt.explain.neuron_removal import halves, judge_neurons, measuring_half
from planted_windows import FRAMES, draw_bumps, smooth_noise, trained_classifier

NEURONS, WINDOWS, ANIMALS = 20, 6, 6
IS_PLANTED = np.arange(NEURONS) % 2 == 0
TELLS = Groups(True, 0.9, (0.5,), 0.05, 0.01, "")
PROCESSOR = NeurtProcessor(window_length=FRAMES, normalization="none", neighbour_radius=150.0, radius_unit="um")
LABEL2ID = {"down": 0, "up": 1}


def make_recording(animal, *, planted=IS_PLANTED, seed=0, **changes):
    """Noise; the planted neurons have a bump in each window, up in every other animal."""
    rng, label = np.random.default_rng([seed, animal]), ("down", "up")[animal % 2]
    traces = smooth_noise(rng, (NEURONS, FRAMES * WINDOWS))
    bumps, _ = draw_bumps(rng, np.full(NEURONS * WINDOWS, FRAMES), np.repeat(planted, WINDOWS))
    traces += (1 if label == "up" else -1) * bumps.reshape(NEURONS, -1)
    fields = {
        "traces": traces.astype(np.float32),
        "centroids": rng.uniform(0, 400, (NEURONS, 2)),
        "coordinate_unit": "um",
        "roi_ids": tuple(map(str, range(NEURONS))),
    }
    names = {"recording_id": f"r{animal}", "subject_id": f"m{animal}", "session_id": f"s{animal}"}
    return Recording(**{**fields, **names, "sampling_rate": 8.0, "labels": {"group": label}, **changes})


@pytest.fixture(scope="module")
def recordings():
    return [make_recording(animal) for animal in range(ANIMALS)]


def removed(recordings, importance, **options):
    options = {"groups": TELLS, "missing_neighbours": "mask", **options}
    return judge_neurons(trained_classifier(), options.pop("processor", PROCESSOR), recordings, importance, **options)


def windows_of(recordings, processor=PROCESSOR, **options):
    dataset = WindowDataset(
        recordings, processor, label="group", label2id=LABEL2ID, missing_neighbours="mask", **options
    )
    return gather(dataset, np.arange(len(dataset)))


def own_log_odds(recordings, windows):
    """Importance as a user would measure it: the mean log-odds of a neuron's windows, for its animal's class."""
    of_windows = log_odds_of(trained_classifier(), windows.inputs, windows.classes)
    return [neuron_importance(of_windows, windows, recording) for recording in recordings]


def curve(verdict, name=EXPLANATION):
    return np.array([point.mean for point in verdict.deletion[name]])


def test_the_planted_neurons_pass_and_the_others_fail(recordings):
    verdict = removed(recordings, ANIMALS * [IS_PLANTED.astype(float)])
    assert verdict.faithful and verdict.areas[RANDOM_NEURONS].low > 0.1
    assert (verdict.unit, verdict.num_windows, verdict.num_subjects) == ("neurons", ANIMALS, ANIMALS)
    opposite = removed(recordings, ANIMALS * [1.0 - IS_PLANTED])
    assert opposite.stamp == f"not faithful: {AS_GOOD[RANDOM_NEURONS]}" and opposite.areas[RANDOM_NEURONS].high < 0
    # Half of the neurons are planted: with 60 % removed no bump is left, the other way round nothing else is.
    assert curve(verdict)[-1] < 0.5 * curve(verdict)[0] and curve(opposite)[-1] > 2 * curve(verdict)[0]


def test_neurons_in_random_order_fail(recordings):
    rng = np.random.default_rng(1)
    assert not removed(recordings, [rng.random(NEURONS) for _ in recordings]).faithful


def test_importance_measured_on_one_half_of_the_windows_holds_on_the_other(recordings):
    windows = measuring_half(windows_of(recordings), recordings, PROCESSOR)
    assert sorted(set(windows.start_frame)) == [0, 2 * FRAMES, 4 * FRAMES]
    assert removed(recordings, own_log_odds(recordings, windows)).faithful


def test_neurons_that_only_noise_makes_important_fail_on_the_other_half_alone():
    # Without neighbours: how many a neuron has stays the same, and may well matter to the model.
    nothing = {"planted": np.zeros(NEURONS, dtype=bool), "centroids": None, "coordinate_unit": None}
    noise = [make_recording(animal, seed=1, **nothing) for animal in range(ANIMALS)]
    windows = windows_of(noise)
    of_up = log_odds_of(trained_classifier(), windows.inputs, np.ones(len(windows), dtype=int))
    # Of six windows of a neuron the first, third and fifth measure, and the second and sixth are scored.
    measure, scored = (np.isin(windows.start_frame, starts) for starts in ([0, 80, 160], [40, 200]))

    def measured_on(chosen):
        found = [neuron_importance(of_up[chosen], windows[chosen], recording) for recording in noise]
        decisions = [np.sign(of_up[scored & (windows.recording == place)].mean()) for place in range(ANIMALS)]
        return [decision * importance for decision, importance in zip(decisions, found, strict=True)]

    assert not removed(noise, measured_on(measure)).faithful
    assert removed(noise, measured_on(scored)).areas[RANDOM_NEURONS].low > 0.2


def test_with_nothing_removed_the_score_is_that_of_the_tested_windows(recordings):
    windows = windows_of(recordings)
    # Of the tested windows, which are the second, fourth and sixth, the first and the last are scored.
    scored = windows[np.isin(windows.start_frame, [FRAMES, 5 * FRAMES])]
    found = removed(recordings, ANIMALS * [IS_PLANTED.astype(float)])
    expected = []
    for animal in range(ANIMALS):
        own = scored[scored.recording == animal]
        values = log_odds_of(trained_classifier(), own.inputs, np.ones(len(own), dtype=int)).mean()
        expected.append(abs(values))  # for the class that the model gives the animal
    assert curve(found)[0] == pytest.approx(np.mean(expected), abs=1e-4)
    assert curve(found, RANDOM_NEURONS)[0] == pytest.approx(np.mean(expected), abs=1e-4)


@pytest.mark.parametrize("radius_unit", ["um", "quantile"])
def test_removed_neurons_are_gone_from_the_others_neighbourhoods_too(recordings, radius_unit):
    importance = -np.arange(NEURONS, dtype=float)  # in order
    one, processor = recordings[:1], PROCESSOR
    if radius_unit == "quantile":
        # The radius that is a quantile of the whole recording stays what it was when neurons are gone.
        processor = NeurtProcessor(window_length=FRAMES, normalization="none", neighbour_radius=0.5)
        distances = np.linalg.norm(one[0].centroids[:, None] - one[0].centroids, axis=-1)
        fixed = float(np.quantile(distances[np.triu_indices(NEURONS, 1)], 0.5))
    else:
        fixed = PROCESSOR.neighbour_radius
    in_um = NeurtProcessor(window_length=FRAMES, normalization="none", neighbour_radius=fixed, radius_unit="um")
    found = curve(removed(one, [importance], processor=processor))
    target = None
    for share, value in zip(SHARES, found, strict=True):
        left = np.arange(NEURONS) >= np.rint(share * NEURONS)
        windows = windows_of([one[0].only(left)], in_um)
        windows = windows[np.isin(windows.start_frame, [FRAMES, 5 * FRAMES])]
        scores = log_odds_of(trained_classifier(), windows.inputs, np.ones(len(windows), dtype=int))
        target = scores.mean() > 0 if target is None else target
        if left.sum() >= 5:  # with fewer the processor makes no neighbourhoods at all
            assert value == pytest.approx(scores.mean() * (1 if target else -1), abs=1e-4)


def test_what_is_not_known_to_be_important_or_not_stays_and_is_not_scored(recordings):
    known = np.where(np.arange(NEURONS) < 8, IS_PLANTED, np.nan)
    found = removed(recordings[:1], [known])
    windows = windows_of(recordings[:1])
    scored = windows[np.isin(windows.start_frame, [FRAMES, 5 * FRAMES]) & (windows.neuron_index < 8)]
    values = log_odds_of(trained_classifier(), scored.inputs, np.ones(len(scored), dtype=int)).mean()
    assert curve(found)[0] == pytest.approx(abs(values), abs=1e-4)


def test_recordings_without_positions_lose_neurons_only(recordings):
    alone = [make_recording(animal, centroids=None, coordinate_unit=None) for animal in range(ANIMALS)]
    assert removed(alone, ANIMALS * [IS_PLANTED.astype(float)]).faithful
    with pytest.raises(ValueError, match="got 0 neurons"):
        removed(alone, ANIMALS * [IS_PLANTED.astype(float)], missing_neighbours="error")


def test_recordings_of_one_animal_are_one_subject(recordings):
    same = [make_recording(animal, subject_id=f"m{animal % 2}") for animal in range(4)]
    verdict = removed(same, 4 * [IS_PLANTED.astype(float)])
    assert verdict.num_subjects == 2 and verdict.areas[RANDOM_NEURONS].low is None
    assert verdict.stamp == "not tested: there are fewer than 3 animals"


def test_a_model_that_tells_no_groups_has_no_important_neurons(recordings):
    tells_nothing = Groups(False, 0.5, (0.5,), 0.5, 0.5, "")
    verdict = removed(recordings, ANIMALS * [IS_PLANTED.astype(float)], groups=tells_nothing)
    assert verdict.stamp == f"not faithful: {NO_GROUPS}"


def test_the_halves_of_a_recording_share_no_frame_whatever_the_stride(recordings):
    overlapping = NeurtProcessor(window_length=FRAMES, window_stride=10)
    first, second = halves(recordings[0], overlapping)
    assert first == [(0, 40), (80, 120), (160, 200)] and second == [(40, 80), (120, 160), (200, 240)]
    trials = make_recording(0, segment_starts=(0, 50, 130))
    assert halves(trials, PROCESSOR) == ([(0, 40), (90, 130), (170, 210)], [(50, 90), (130, 170)])


def test_rejected_neurons_are_no_neurons():
    accepted = np.arange(NEURONS) != 5
    some = [make_recording(animal, accepted=accepted) for animal in range(2)]
    importance = 2 * [IS_PLANTED[accepted].astype(float)]
    gone = [recording.only(accepted) for recording in some]
    np.testing.assert_array_equal(curve(removed(some, importance)), curve(removed(gone, importance)))
    with pytest.raises(ValueError, match=r"importance of 19 accepted neurons, got \(20,\)"):
        removed(some, 2 * [IS_PLANTED.astype(float)])


def test_a_recording_too_short_to_be_tested_is_refused():
    traces = smooth_noise(np.random.default_rng(0), (NEURONS, FRAMES)).astype(np.float32)
    with pytest.raises(ValueError, match="'r0': expected two neurons of known importance and two windows or more"):
        removed([make_recording(0, traces=traces)], [np.ones(NEURONS)])
