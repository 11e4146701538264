"""The baseline for groups: its statistics by hand, what it may see, and that it never crashes a run."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
from neurt.baselines import (
    NEURON_BLOCK,
    SIMPLE_STATISTICS,
    STATISTICS,
    autocorrelations,
    beside_simple_statistics,
    event_rates,
    recording_statistics,
    simple_statistics_logits,
    simple_statistics_rows,
    trace_statistics,
)
from neurt.dataset_scripts.recording import Recording
from neurt.dataset_scripts.windows import WindowDataset
from neurt.evaluation import LARGER_CLASS, ClassificationScores, MeasuredOn
from neurt.metrics.subject_classification import scored_windows, unit_scores
from neurt.processing_neurt import NeurtProcessor
from scipy.signal import lfilter
from scipy.stats import skew


def recording(name, subject=None, skewed=False, scale=1.0, neurons=6, frames=200, label=None, seed=None):
    """White noise, whose square is skewed; the seed is the name unless given."""
    rng = np.random.default_rng([*name.encode()] if seed is None else seed)
    traces = rng.standard_normal((neurons, frames)) * scale
    return Recording(
        traces=(traces**2 if skewed else traces).astype(np.float32),
        sampling_rate=5.0,
        recording_id=name,
        subject_id=subject or f"mouse {name}",
        session_id=name,
        roi_ids=tuple(map(str, range(neurons))),
        centroids=rng.uniform(0, 100, (neurons, 2)).astype(np.float32),
        coordinate_unit="um",
        labels={} if label is None else {"group": label},
    )


def cohort(prefix, per_class=4, **options):
    """Recordings of animals in two classes that differ in skewness, and the class ids."""
    classes = [k % 2 for k in range(2 * per_class)]
    members = [recording(f"{prefix}{i}", skewed=bool(k), label="ab"[k], **options) for i, k in enumerate(classes)]
    return members, classes


def statistics(trace, sampling_rate, segment_starts=(0,)):
    """Of one trace, by name."""
    values = trace_statistics(np.array([trace], dtype=np.float64), sampling_rate, segment_starts)
    return dict(zip(STATISTICS, values[0].tolist(), strict=True))


def test_the_statistics_of_a_short_trace_are_those_computed_by_hand():
    # Mean 1; deviations -1, 0, -1, 2: variance 6/4, third moment 6/4. Lag of one frame at 1 Hz: products 0, 0, -2.
    # So the autocorrelation falls from 1 to -4/9 in the first second. Absolute differences 1, 1, 3: median 1. The
    # noise has an SD of about 1, and nothing rises to over 3 SDs above the median of 0.5.
    assert statistics([0, 1, 0, 3], 1.0) == pytest.approx(
        {
            "mean": 1,
            "SD": 1.5**0.5,
            "skewness": 1.5 / 1.5**1.5,
            "autocorrelation at 1 s": (-2 / 3) / 1.5,
            "autocorrelation time": (1 - 1 / np.e) / (1 + 4 / 9),
            "noise level": 1,
            "event rate": 0,
        }
    )


def test_the_statistics_agree_with_an_independent_library():
    trace = np.random.default_rng(0).gamma(2, size=500)
    found = statistics(trace, 4.0)
    assert (found["mean"], found["SD"]) == pytest.approx((np.mean(trace), np.std(trace)))
    assert found["skewness"] == pytest.approx(skew(trace))
    assert found["autocorrelation at 1 s"] == pytest.approx(np.corrcoef(trace[:-4], trace[4:])[0, 1], abs=0.01)
    # Twice the rate over the square root of two: the same noise per √Hz.
    assert statistics(trace, 8.0)["noise level"] == pytest.approx(found["noise level"] / 2**0.5)


def test_no_pair_of_frames_is_taken_across_a_segment_border():
    # Inside the segments nothing changes from one frame to the next; a jump lies on the border.
    trace = [0, 0, 0, 9, 9, 9]
    names = ("autocorrelation at 1 s", "noise level", "event rate")
    assert [statistics(trace, 1.0, (0, 3))[name] for name in names] == pytest.approx([1, 0, 0])
    assert statistics(trace, 1.0)["event rate"] == pytest.approx(1 / 6)
    assert statistics([0, 1, 9, 9], 1.0, (0, 2))["noise level"] == pytest.approx(0.5)
    # One second is two frames: products (0, 2) and (3, 5) only.
    assert statistics(trace, 2.0, (0, 3))["autocorrelation at 1 s"] == pytest.approx(1)
    # No segment lasts a second, or two frames.
    assert statistics(trace, 4.0, (0, 3))["autocorrelation at 1 s"] == 0
    assert [statistics(trace, 4.0, range(6))[name] for name in names] == pytest.approx([0, 0, 0])


def test_autocorrelations_are_means_over_the_pairs_within_segments():
    traces = np.random.default_rng(0).random((3, 12))
    deviations = traces - traces.mean(1, keepdims=True)
    pieces = [deviations[:, :5], deviations[:, 5:7], deviations[:, 7:]]
    for lag, found in enumerate(autocorrelations(traces, (0, 5, 7)).T):
        products = [piece[:, : piece.shape[1] - lag] * piece[:, lag:] for piece in pieces if piece.shape[1] > lag]
        assert found == pytest.approx(np.concatenate(products, axis=1).mean(1) / deviations.var(1))
    assert lag == 4


@pytest.mark.parametrize("sampling_rate", [5.0, 20.0])
def test_the_autocorrelation_time_of_a_decaying_process_is_its_time_constant_at_any_rate(sampling_rate):
    decay = np.exp(-1 / (2.0 * sampling_rate))
    noise = np.random.default_rng(0).standard_normal((20, int(4000 * sampling_rate)))
    traces = lfilter([1], [1, -decay], noise)
    times = trace_statistics(traces, sampling_rate)[:, STATISTICS.index("autocorrelation time")]
    assert times.mean() == pytest.approx(2.0, rel=0.05)


def test_a_trace_that_stays_alike_has_the_longest_lag_as_its_autocorrelation_time():
    # Deviations -1 and 1, each for a segment of four frames: the autocorrelation is 1 at every lag, up to 3 frames.
    assert statistics([0] * 4 + [2] * 4, 2.0, (0, 4))["autocorrelation time"] == pytest.approx(1.5)


def test_events_are_counted_where_a_trace_rises_from_near_its_median_far_above_its_noise():
    # The median step is 1, so the noise has an SD of 1.05; at 10 Hz an event exceeds 3.7 of them, 3.9 in all.
    quiet = [0, 1] * 10
    for peak, events in {3: 0, 4: 0, 5: 1}.items():
        assert statistics([*quiet, peak, *quiet], 10.0)["event rate"] == pytest.approx(events * 10 / 41)
    # Still the same event, until it is back near the median; begun before the segment, none.
    assert statistics([*quiet, 9, 3, 9, 3, 9, *quiet], 10.0)["event rate"] == pytest.approx(10 / 45)
    assert statistics([*quiet, 9, 0, 9, 0, 9, *quiet], 10.0)["event rate"] == pytest.approx(30 / 45)
    assert statistics([*quiet, 9, 9, *quiet], 10.0, (0, 20))["event rate"] == 0


def test_in_a_trace_that_is_mostly_zero_each_rise_is_an_event():
    assert statistics([0, 0, 0, 2, 1, 0, 0, 0, 0, 1, 0, 0], 20.0)["event rate"] == pytest.approx(2 * 20 / 12)


@pytest.mark.parametrize("sampling_rate", [2.0, 30.0])
def test_white_noise_has_a_false_event_in_a_thousand_seconds_at_any_frame_rate(sampling_rate):
    noise = np.random.default_rng(0).standard_normal((100, int(1000 * sampling_rate)))
    assert event_rates(noise, sampling_rate).mean() == pytest.approx(0.001, rel=0.3)
    assert event_rates(100 * noise + 7, sampling_rate).mean() == pytest.approx(0.001, rel=0.3)


def test_a_recording_is_the_mean_and_the_spread_over_its_neurons():
    member = recording("a", neurons=NEURON_BLOCK + 3)
    scaled = (member.traces - member.traces.min(1, keepdims=True)) / np.ptp(member.traces, axis=1)[:, None]
    rows = np.stack([list(statistics(trace, 5.0).values()) for trace in scaled])
    assert recording_statistics(member) == pytest.approx(np.concatenate([rows.mean(0), rows.std(0)]), rel=1e-4)


def test_the_scale_of_a_recording_is_seen_only_where_the_model_sees_it():
    quiet, loud = recording("a", seed=1), recording("a", seed=1, scale=10)
    for normalization in ("minmax", "zscore"):
        same = recording_statistics(loud, normalization)
        assert same == pytest.approx(recording_statistics(quiet, normalization), rel=1e-4)
    mean, spread = recording_statistics(loud, "none")[:2] / recording_statistics(quiet, "none")[:2]
    assert (mean, spread) == pytest.approx((10, 10))


def test_rejected_neurons_and_those_without_a_usable_trace_are_left_out():
    member = recording("a", neurons=5)
    broken = recording("a", neurons=5)
    broken.traces[0] = 3.0
    broken.traces[1, 7] = np.nan
    broken.traces[2, 8] = np.inf
    rest = Recording(member.traces[3:], 5.0, "rest", "m", "s", ("3", "4"))
    assert recording_statistics(broken) == pytest.approx(recording_statistics(rest))
    curated = dataclasses.replace(member, accepted=np.arange(5) > 2)
    assert recording_statistics(curated) == pytest.approx(recording_statistics(rest))


def test_groups_that_differ_in_a_statistic_are_told_apart_on_other_animals():
    train, train_classes = cohort("train")
    test, test_classes = cohort("test")
    by_recording, by_subject = simple_statistics_rows(train, test, train_classes, test_classes, 2)
    assert [row["level"] for row in (by_recording, by_subject)] == ["recording", "subject"]
    assert by_subject["predictor"] == SIMPLE_STATISTICS
    assert by_subject["roc_auc"] == by_subject["accuracy"] == 1
    assert by_subject["n_per_class"] == [4, 4]
    # The other way round it is wrong each time: nothing is fitted to the test animals.
    reversed_classes = [1 - k for k in test_classes]
    assert simple_statistics_rows(train, test, train_classes, reversed_classes, 2)[1]["roc_auc"] == 0


def test_a_subject_is_the_mean_of_its_recordings():
    train, train_classes = cohort("train")
    test = [recording("x1", "x"), recording("x2", "x"), recording("y1", "y", skewed=True)]
    by_recording, by_subject = simple_statistics_rows(train, test, train_classes, [0, 0, 1], 2)
    assert (by_recording["n"], by_subject["n"]) == (3, 2)
    assert by_recording["n_per_class"] == [2, 1]


def test_an_animal_counts_once_in_the_fit_however_many_recordings_it_has():
    train, classes = cohort("train", per_class=2)
    copies = [recording("train0", seed=i) for i in range(6)]
    once = [recording(f"only{i}", f"mouse {i}", seed=i) for i in range(6)]
    of_one_animal = [
        Recording(r.traces, 5.0, f"copy{i}", "mouse train0", "s", r.roi_ids) for i, r in enumerate(copies)
    ]
    # Log-odds lean to the class with more animals, not to the one with more recordings.
    test = [recording("test0"), recording("test1", skewed=True)]
    weighted = simple_statistics_logits(train + of_one_animal, test, classes + [0] * 6, "minmax")
    unweighted = simple_statistics_logits(train + once, test, classes + [0] * 6, "minmax")
    assert (weighted[:, 1] > unweighted[:, 1]).all()


def test_the_unit_of_the_traces_changes_no_score():
    train, classes = cohort("train")
    test, _ = cohort("test")
    expected = simple_statistics_logits(train, test, classes, "none")
    # By a power of two, for then float32 rounds alike.
    train, test = ([dataclasses.replace(r, traces=1024 * r.traces) for r in side] for side in (train, test))
    assert simple_statistics_logits(train, test, classes, "none") == pytest.approx(expected)


@pytest.mark.parametrize("present", [[0], [1], []])
def test_a_class_without_training_recordings_gives_a_reason_and_no_score(present):
    train = [recording(f"train{k}") for k in present]
    test, test_classes = cohort("test", per_class=1)
    for row in simple_statistics_rows(train, test, present, test_classes, 2):
        assert np.isnan(row["roc_auc"]) and np.isnan(row["accuracy"])
        missing = ", ".join(str(k) for k in (0, 1) if k not in present)
        assert row["undefined"] == f"no training recording of class {missing}"
        assert row["n"] == 2


def test_one_training_recording_of_each_class_and_one_neuron_are_enough():
    train, train_classes = cohort("train", per_class=1, neurons=1)
    test, test_classes = cohort("test", neurons=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_subject = simple_statistics_rows(train, test, train_classes, test_classes, 2)[1]
    assert 0 <= by_subject["roc_auc"] <= 1 and by_subject["undefined"] == ""


def test_a_test_set_of_one_class_has_an_accuracy_and_no_auc():
    train, train_classes = cohort("train")
    by_subject = simple_statistics_rows(train, [recording("test")], train_classes, [0], 2)[1]
    assert by_subject["accuracy"] == 1 and np.isnan(by_subject["roc_auc"])
    assert by_subject["undefined"] == "no unit of class 1"


def test_three_classes_are_scored_too():
    def members(prefix):
        triples = [recording(f"{prefix}{i}", skewed=i % 3 > 0, frames=40 if i % 3 == 2 else 2000) for i in range(9)]
        return triples, [i % 3 for i in range(9)]

    train, train_classes = members("train")
    test, test_classes = members("test")
    by_subject = simple_statistics_rows(train, test, train_classes, test_classes, 3)[1]
    assert by_subject["roc_auc"] > 0.9 and by_subject["n_per_class"] == [3, 3, 3]


def test_without_a_difference_the_mean_auc_over_cohorts_is_even():
    aucs = []
    for seed in range(40):
        train = [recording(f"{seed}train{i}", frames=60, neurons=3) for i in range(6)]
        test = [recording(f"{seed}test{i}", frames=60, neurons=3) for i in range(6)]
        classes = [i % 2 for i in range(6)]
        aucs.append(simple_statistics_rows(train, test, classes, classes, 2)[1]["roc_auc"])
    assert abs(np.mean(aucs) - 0.5) < 2 * np.std(aucs, ddof=1) / 40**0.5


def unit_scores_of(classes):
    names = list(map(str, range(len(classes))))
    return unit_scores(scored_windows(np.zeros(len(classes)), classes, names, names))


def test_the_baseline_stands_beside_the_model_for_the_recordings_that_both_can_use():
    train, _ = cohort("train")
    test, test_classes = cohort("test", per_class=2)
    # Too few neurons for the model, so neither predictor is asked.
    skipped = recording("skipped", neurons=3, label="a")
    recordings = [*train, *test, skipped]
    processor = NeurtProcessor(window_length=32)
    options = {"label": "group", "label2id": {"a": 0, "b": 1}}
    sides = [WindowDataset(side, processor, **options) for side in (train, [*test, skipped])]
    model_rows = [
        {"level": level, "predictor": "model", **unit_scores_of(test_classes)}
        for level in ("window", "recording", "subject")
    ]
    scores = ClassificationScores(model_rows, [], ("a", "b"), MeasuredOn(True, 0, 24, None, 4, None))
    both = beside_simple_statistics(scores, recordings, *sides, processor.normalization)
    assert both.row("subject", SIMPLE_STATISTICS)["n"] == both.row("subject")["n"] == 4
    assert both.row("subject")["predictor"] == "model"
    assert both.row("subject", SIMPLE_STATISTICS)["predictor"] == SIMPLE_STATISTICS
    assert len(scores.rows) == 3 and both.rows[:3] == scores.rows
    lines = [line.split(" | ")[:2] for line in both.to_markdown().splitlines()[2:7]]
    assert lines == [
        ["| window", "model"],
        ["| recording", "model"],
        ["| recording", SIMPLE_STATISTICS],
        ["| subject", "model"],
        ["| subject", SIMPLE_STATISTICS],
    ]


def test_fine_tuning_writes_the_baseline_into_its_results_and_its_summary(classifier):
    rows = json.loads((classifier / "results.json").read_text())["classification"]["rows"]
    found = {(row["level"], row["predictor"]): row for row in rows}
    assert list(found) == [
        *((level, "model") for level in ("window", "recording", "subject")),
        *((level, LARGER_CLASS) for level in ("window", "recording", "subject")),
        *((level, SIMPLE_STATISTICS) for level in ("recording", "subject")),
    ]
    for level, n_per_class in {"recording": [2, 2], "subject": [1, 1]}.items():
        assert found[level, "model"]["n_per_class"] == found[level, SIMPLE_STATISTICS]["n_per_class"] == n_per_class
    verdict = (classifier / "summary.md").read_text().split("## Groups of animals\n\n")[1].splitlines()[0]
    assert verdict.startswith("Accuracy over 2 simulated test subjects: ") and f" for {SIMPLE_STATISTICS}; " in verdict
    assert verdict.endswith("; **fewer than 3 of a class were tested, too few to tell chance from skill**.")
