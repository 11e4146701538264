"""What separates groups without biology is found, with the right p-value; where nothing does, nothing is found."""

import dataclasses
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from neurt.crossval.cohort import REGRESSION, make_cohort
from neurt.crossval.confounds import confound_table, holm, recording_date, separation
from neurt.dataset_scripts.recording import Recording
from scipy.stats import kendalltau
from sklearn.metrics import roc_auc_score

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from real_sets import real_data_folder, real_sets


def recording(name, mouse, neurons=4, frames=40, **options):
    """The same traces for the same size."""
    rng = np.random.default_rng(0)
    defaults = {
        "sampling_rate": 5.0,
        "session_id": "1",
        "trace_kind": "dff",
        "centroids": 100 * rng.random((neurons, 2)),
        "coordinate_unit": "um",
    }
    traces = rng.random((neurons, frames)).astype(np.float32)
    roi_ids = tuple(map(str, range(neurons)))
    return Recording(traces, recording_id=name, subject_id=mouse, roi_ids=roi_ids, **(defaults | options))


def mice(per_group=4, options=lambda number, group: {}):
    """Mice that alternate between groups "a" and "b", one recording each."""
    made = []
    for number in range(2 * per_group):
        group = "ab"[number % 2]
        changed = dict(options(number, group))
        labels = {"group": group, **changed.pop("labels", {})}
        made.append(recording(f"r{number}", f"m{number:02d}", labels=labels, **changed))
    return made


def table_of(recordings, **options):
    rows = confound_table(recordings, make_cohort(recordings, "group", **options))
    return {row.name: row for row in rows}


def test_mice_that_are_alike_have_no_confounds():
    assert table_of(mice()) == {}


def test_longer_recordings_of_one_group_are_found_with_their_exact_p_value():
    table = table_of(mice(4, lambda number, group: {"frames": 40 + number + 100 * (group == "b")}))
    found = table["frames"]
    assert found.typical == {"a": 43, "b": 144}
    # Of the 8! / (4! 4!) labellings only this one and its mirror image separate the groups.
    assert (found.separation, found.exact, found.suspicious) == (1, True, True)
    assert found.p_value == pytest.approx(2 / 70)
    assert table["recording length"].typical["b"] == pytest.approx(144 / 5, rel=1e-3)
    assert table["recording length"].unit == "s"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (lambda n, g: {"sampling_rate": 5 + (g == "b")}, {"frame rate", "recording length", "noise level"}),
        (lambda n, g: {"neurons": 4 + 3 * (g == "b")}, {"neurons"}),
        (lambda n, g: {"centroids": np.eye(4, 2) * (2 if g == "b" else 3)}, {"distance to the nearest neuron"}),
        (lambda n, g: {"trace_kind": "denoised" if g == "b" else "dff"}, {"trace kind"}),
        (lambda n, g: {"indicator": "GCaMP6s" if g == "b" else None}, {"indicator"}),
        (lambda n, g: {"coordinate_unit": "px" if g == "b" else "um"}, {"unit of positions"}),
        (lambda n, g: {"modality": "miniscope" if g == "b" else "two-photon"}, {"modality"}),
        (lambda n, g: {"labels": {"date": f"2024-05-0{1 + (g == 'b')}"}}, {"recording date"}),
    ],
)
def test_each_property_is_found_where_it_separates_the_groups(options, names):
    table = table_of(mice(4, options))
    assert all(row.separation == 1 and row.p_value == pytest.approx(2 / 70) for row in table.values())
    # Fewer neurons of the same random numbers also have other medians, and distances.
    assert names <= set(table)
    if names != {"neurons"}:
        assert set(table) - names <= {"distance to the nearest neuron"}


def test_louder_and_noisier_traces_are_measured_unscaled():
    recordings = mice(4)
    ramp = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (4, 1))
    scaled = [dataclasses.replace(r, traces=ramp * (2 if r.labels["group"] == "b" else 1)) for r in recordings]
    table = table_of(scaled)
    assert set(table) == {"amplitude scale", "noise level"}
    assert table["amplitude scale"].typical == {"a": 1, "b": 2}
    # Steps of 1/39 at 5 Hz, in per cent.
    assert table["noise level"].typical["a"] == pytest.approx(100 / 39 / 5**0.5, rel=1e-3)
    assert table["noise level"].unit == "% ΔF/F per √Hz"
    # In units of its own SD a trace is as noisy as its double.
    raw = [dataclasses.replace(r, trace_kind="fluorescence") for r in scaled]
    assert set(table_of(raw)) == {"amplitude scale"}


def test_rejected_neurons_are_not_counted():
    accepted = np.array([True] * 4 + [False] * 3)
    recordings = mice(4, lambda number, group: {"neurons": 7, "accepted": accepted} if group == "b" else {})
    assert "neurons" not in table_of(recordings)


def test_missing_samples_are_not_measured():
    recordings = mice(4)
    whole = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (4, 1))
    broken = whole.copy()
    broken[1, 3], broken[2, 4], broken[3] = np.nan, np.inf, np.nan
    traces = {"a": whole, "b": broken}
    assert table_of([dataclasses.replace(r, traces=traces[r.labels["group"]]) for r in recordings]) == {}


def test_dates_that_differ_by_group_are_found_as_in_mice_recorded_one_group_after_the_other():
    dates = {
        "a": ("2023-08-03", "2023-08-03", "2023-08-04", "2023-08-04"),
        "b": ("2023-08-09", "2023-08-10", "2023-08-14"),
    }
    recordings = mice(4, lambda number, group: {"labels": {"date": (*dates[group], None)[number // 2]}})[:7]
    found = table_of(recordings)["recording date"]
    assert found.typical == {"a": "2023-08-03", "b": "2023-08-10"}
    # Of 35 labellings no other separates them: with the three first in one group, 4 August would be in both.
    assert (found.separation, found.p_value, found.suspicious) == (1, pytest.approx(1 / 35), True)


def test_perfect_separation_is_suspicious_where_mice_are_too_few_to_be_significant():
    found = table_of(mice(2, lambda number, group: {"frames": 50 + number + 20 * (group == "b")}))["frames"]
    assert (found.separation, found.p_value, found.suspicious) == (1, pytest.approx(2 / 6), True)


def test_days_that_belong_to_one_group_are_found_although_their_order_tells_nothing():
    days = ["2024-01-01", "2024-01-02", "2024-01-04", "2024-01-03"]  # a, b, b, a in order of time
    recordings = mice(4, lambda number, group: {"labels": {"date": days[number % 4]}})
    table = table_of(recordings)
    assert table["recording date"].separation == 0.5 and not table["recording date"].suspicious
    assert table["recording day"].separation == 1 and table["recording day"].suspicious


def test_a_day_for_each_mouse_is_no_property_of_a_group():
    recordings = mice(4, lambda number, group: {"labels": {"date": f"2024-01-{number + 1:02d}"}})
    assert set(table_of(recordings)) == {"recording date"}


@pytest.mark.parametrize(
    ("labels", "session", "date"),
    [
        ({"date": "2024-05-01"}, "1", "2024-05-01"),
        ({"imaging_date": "2024-05-01T10:30"}, "1", "2024-05-01"),
        ({"date": None, "session": "20240501"}, "1", "2024-05-01"),
        ({"birth_date": "2024-01-01"}, "2024-05-01", "2024-05-01"),
        ({"date": "1 May"}, "4-7", "None"),
    ],
)
def test_dates_are_read_from_labels_or_the_session_in_iso_format_alone(labels, session, date):
    assert str(recording_date(recording("r", "m", labels=labels, session_id=session))) == date


def test_what_is_known_of_one_group_alone_separates_the_groups():
    recordings = mice(4, lambda number, group: {"labels": {"date": "2024-05-01"} if group == "b" else {}})
    found = table_of(recordings)["recording date"]
    assert found.typical == {"a": "unknown", "b": "2024-05-01"} and found.separation == 1


def test_labels_are_exchanged_within_strata_alone():
    def of_cage(number, group):
        return {"frames": 40 + number, "labels": {"cage": str(number // 2)}}

    # In each cage of two the mouse of group b has one frame more: 2^5 labellings, of which two are as good.
    found = table_of(mice(5, of_cage), stratum="cage")["frames"]
    assert found.separation == pytest.approx(15 / 25)
    assert found.p_value == pytest.approx(2 / 32)
    assert table_of(mice(5, of_cage))["frames"].p_value > 0.5


def test_a_continuous_target_is_compared_by_its_order():
    recordings = [recording(f"r{i}", f"m{i}", frames=80 - i, labels={"age": age}) for i, age in enumerate("1235")]
    rows = confound_table(recordings, make_cohort(recordings, "age", problem_type=REGRESSION))
    found = next(row for row in rows if row.name == "frames")
    assert (found.separation, found.typical) == (1, {"all": 78.5})
    assert found.p_value == pytest.approx(2 / 24)


def test_numbers_are_averaged_over_the_recordings_of_a_mouse():
    recordings = mice(2, lambda number, group: {"frames": 50})
    extra = recording("second", "m01", frames=70, labels={"group": "b"})
    assert table_of([*recordings, extra])["frames"].typical == {"a": 50, "b": 55}


def test_a_mouse_with_recordings_of_two_kinds_is_of_a_third_kind():
    recordings = mice(4, lambda number, group: {"indicator": "A"})
    extra = [recording(f"s{n}", f"m{n:02d}", indicator="B", labels={"group": "b"}) for n in (1, 3, 5, 7)]
    assert table_of([*recordings, *extra])["indicator"].typical == {"a": "A", "b": "A, B"}


def test_recordings_of_another_cohort_are_refused():
    recordings = mice()
    with pytest.raises(ValueError, match="expected the recordings of the cohort, in its order"):
        confound_table(recordings[::-1], make_cohort(recordings, "group"))


def test_chance_alone_is_rarely_suspicious():
    p_values = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        recordings = mice(
            4, lambda n, g, rng=rng: {"frames": int(rng.integers(40, 60)), "neurons": int(rng.integers(4, 40))}
        )
        p_values += [row.p_value for row in table_of(recordings).values() if row.name in ("frames", "neurons")]
    assert len(p_values) == 80
    assert np.mean(np.array(p_values) < 0.05) <= 0.1 and 0.4 < np.mean(p_values) < 0.7


def test_separation_equals_hand_computed_shares_whichever_way_round():
    values = np.array([1.0, 2, 3, 4])
    # Of the pairs 1-2, 1-4, 3-2, 3-4 three are in order.
    assert separation(values, np.array([0, 1, 0, 1]), 2) == 3 / 4
    assert separation(-values, np.array([0, 1, 0, 1]), 2) == 3 / 4
    assert separation(np.array([1.0, 1, 1, 2]), np.array([0, 0, 1, 1]), 2) == 3 / 4


def test_separation_equals_scikit_learn_and_kendall():
    rng = np.random.default_rng(1)
    values, targets = rng.random(15), np.arange(15) % 3
    aucs = []
    for pair in itertools.combinations(range(3), 2):
        rows = np.isin(targets, pair)
        auc = roc_auc_score(targets[rows] == pair[1], values[rows])
        aucs.append(max(auc, 1 - auc))
    assert separation(values, targets, 3) == pytest.approx(np.mean(aucs))
    numbers = rng.random(15)
    assert separation(values, numbers, 0) == pytest.approx((1 + abs(kendalltau(values, numbers)[0])) / 2)


def test_kinds_stand_in_the_best_of_all_their_orders():
    rng = np.random.default_rng(2)
    for _ in range(10):
        kinds, targets = rng.integers(0, 4, 12), rng.permutation(np.arange(12) % 2)
        orders = [np.array(order, float)[kinds] for order in itertools.permutations(range(4))]
        assert separation(kinds, targets, 2) == pytest.approx(max(separation(order, targets, 2) for order in orders))


def test_holm_multiplies_by_how_many_are_left():
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]
    assert holm(np.array([])).tolist() == []


@pytest.mark.skipif(not (real_data_folder() / "park_v1").is_dir(), reason="no real recordings here")
def test_the_dates_of_real_mice_are_found_to_be_those_of_their_group():
    recordings = real_sets()["park_v1"]()
    rows = confound_table(recordings, make_cohort(recordings, "label"))
    found = next(row for row in rows if row.name == "recording date")
    assert found.typical == {"control": "2023-08-10", "knockout": "2023-08-03"}
    # Of 7! / (3! 4!) labellings no other separates them.
    assert (found.separation, found.p_value, found.suspicious) == (1, pytest.approx(1 / 35), True)
