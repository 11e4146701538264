"""Figures of explanations: what they draw, that failures are stamped, and that nothing needs colour."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from neurt.explain.curves import Estimate
from neurt.explain.faithfulness import EXPLANATION
from neurt.explain.figures import (
    group_figure,
    recording_figure,
    removal_figure,
    shares_figure,
    stamp,
    window_figure,
)
from neurt.explain.group_maps import compare_groups

FAILED = "not faithful: the same method on a model of shuffled labels does as well as the explanation does"
NAN = np.nan


def example_window(**changes):
    trace = np.array([0.0, 1, 0.5, NAN])
    maps = {"pooling": np.array([0.5, 2, 0.5, 0]), "gradients": np.array([-1.0, 1, 0, 0])}
    return window_figure(trace, maps, maps["pooling"], **{"sampling_rate": 2.0, "title": "roi 3", **changes})


def example_recording(**changes):
    values = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8], [NAN, 9, 9, 9]])
    options = {
        "sampling_rate": 2.0,
        "label": "weight (1 = average frame)",
        "title": "r1",
        "roi_ids": ("a", "b", "c"),
        "sorted_by": "most important first",
        "contribution": np.array([0.5, -1.0, NAN]),
        "class_name": "5xFAD",
        "centroids": np.array([[0.0, 0], [10, 20], [5, 5]]),
        "coordinate_unit": "um",
    }
    return recording_figure(values, np.array([2, 1, 0]), **(options | changes))


def estimates(*means, width=0.5):
    return [Estimate(mean, *((None, None) if width is None else (mean - width, mean + width))) for mean in means]


def example_removal(width=0.5):
    controls = {name: estimates(3, 2, 1, width=width) for name in ("random", "turned", "weights", "labels")}
    curves = {"random order": estimates(3, 2, 1, width=width), EXPLANATION: estimates(3, 0, -1, width=width)}
    panels = {"hidden": curves | controls, "shown": curves}
    return removal_figure((0, 0.25, 0.5), panels, unit="frames", title="gradients", simulated=True)


def example_groups(animals=4):
    profiles = np.random.default_rng(0).normal(size=(2 * animals, 3))
    classes = np.repeat([0, 1], animals)
    profiles[classes == 1, 1] += 9
    compared = compare_groups(profiles, classes, class_names=("control", "5xFAD"), simulated=True)
    axes = {"xlabel": "tenth of the trace", "ylabel": "weight (1 = average frame)", "title": "By activity"}
    return group_figure(compared, np.array([1, 2, 3]), **axes), compared


def example_shares(low=None):
    shares = np.array([[0.5, 0.1], [0.3, 0.1]])
    low = shares - 0.05 if low is None else low
    names = {"channels": ("own", "near mean"), "aspects": ("level", "timing")}
    return shares_figure(**names, shares=shares, low=low, high=shares + 0.1, ylabel="share", title="What separates")


FIGURES = {
    "window": example_window,
    "recording": example_recording,
    "removal": example_removal,
    "groups": lambda: example_groups()[0],
    "shares": example_shares,
}


def said(figure):
    """Every text of the figure, its panels and their titles, on one line."""
    texts = [text.get_text() for text in figure.findobj(Text) if text.get_visible()]
    return " ".join(" ".join(texts).split())


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")
def test_a_failure_stands_above_the_figure_with_its_reason_and_across_each_panel(name):
    figure = FIGURES[name]()
    before, panels = figure.get_figheight(), [panel for panel in figure.axes if panel.get_label() != "<colorbar>"]
    stamp(figure, FAILED)
    figure.draw_without_rendering()
    assert figure.get_figheight() > before
    (banner,) = [text for text in figure.texts if FAILED == " ".join(text.get_text().split())]
    assert banner.get_size() > 12 and banner.get_bbox_patch().get_linewidth() > 2
    frame, whole = banner.get_bbox_patch().get_window_extent(), figure.bbox
    assert whole.x0 <= frame.x0 and frame.x1 <= whole.x1 and frame.y1 <= whole.y1
    assert all(panel.get_tightbbox().y1 <= frame.y0 for panel in panels)
    for panel in panels:
        (across,) = [text for text in panel.texts if text.get_text() == "NOT FAITHFUL"]
        assert across.get_rotation() > 5 and across.get_size() >= 14


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")
def test_a_pass_is_said_in_small_and_hides_nothing(name):
    figure = FIGURES[name]()
    texts = {id(panel): len(panel.texts) for panel in figure.axes}
    stamp(figure, "faithful (test in figure 3)")
    figure.draw_without_rendering()
    (mark,) = [text for text in figure.texts if "faithful" in text.get_text()]
    assert mark.get_text() == "✓ faithful (test in figure 3)" and mark.get_size() < 10
    assert all(panel.get_tightbbox().y1 <= mark.get_window_extent().y0 for panel in figure.axes)
    assert texts == {id(panel): len(panel.texts) for panel in figure.axes}


@pytest.mark.parametrize("verdict", ["not tested: fewer than 3 animals", "unfaithful"])
def test_whatever_is_not_called_faithful_is_stamped(verdict):
    figure = example_shares()
    stamp(figure, verdict)
    assert figure.axes[0].texts[0].get_text() == verdict.partition(":")[0].upper()


@pytest.mark.filterwarnings("error")
def test_names_of_strangers_are_no_formulas():
    names = ("$\\frac$", "$")
    figure = shares_figure(names, names, *[np.ones((2, 2))] * 3, ylabel="share", title="$\\frac$", simulated=True)
    stamp(figure, "not faithful: $\\frac$")
    figure.draw_without_rendering()
    assert "Simulated: $\\frac$" in said(figure).replace("\\$", "$")
    example_recording(roi_ids=names + ("c",), class_name="$\\frac$").draw_without_rendering()


def test_the_window_has_each_map_and_its_verdict_on_one_time_axis():
    verdicts = {"pooling": "not faithful: as good at random", "gradients": "faithful"}
    figure = example_window(start_frame=10, verdicts=verdicts, units={"gradients": "log-odds"})
    trace, pooling, gradients = figure.axes
    np.testing.assert_array_equal(trace.lines[0].get_xdata(), [5, 5.5, 6])
    np.testing.assert_array_equal(pooling.lines[0].get_ydata(), [0.5, 2, 0.5])
    np.testing.assert_array_equal(gradients.lines[0].get_ydata(), [-1, 1, 0])
    assert gradients.get_xlabel() == "time in the recording (s)" and gradients.get_ylabel() == "log-odds"
    assert pooling.get_title("right") == "not faithful: as good at random"
    assert [text.get_text() for text in pooling.texts] == ["NOT FAITHFUL"]
    assert gradients.get_title("right") == "✓ faithful" and not gradients.texts


def test_dots_on_the_trace_grow_with_the_pooling_weight():
    (dots,) = example_window().axes[0].collections
    sizes = dots.get_sizes()
    np.testing.assert_allclose(sizes / sizes[0], [1, 4, 1])
    np.testing.assert_array_equal(dots.get_offsets(), [[0, 0], [0.5, 1], [1, 0.5]])
    assert "the largest is 2 times the average" in said(example_window())


def test_rows_of_a_recording_come_in_the_order_asked_for():
    figure = example_recording()
    (image,) = figure.axes[0].images
    np.testing.assert_array_equal(image.get_array(), [[NAN, 9, 9, 9], [5, 6, 7, 8], [1, 2, 3, 4]])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["c", "b", "a"]
    assert image.get_extent() == [0, 2, 3, 0]  # seconds, rows
    assert "time (s); hatched: in no window" in said(figure)
    # Where no window is, the ground is seen.
    assert image.cmap(np.ma.masked_invalid([NAN]))[0, 3] == 0


def test_signed_maps_have_zero_in_the_middle_and_shades_grow_lighter_with_the_value():
    (image,) = (
        recording_figure(
            np.array([[-1.0, 3], [0, 2]]),
            np.arange(2),
            **{"sampling_rate": 1, "label": "log-odds", "title": "", "roi_ids": "ab", "sorted_by": ""},
        )
        .axes[0]
        .images
    )
    assert image.get_clim()[0] == -image.get_clim()[1]
    lightness = image.cmap(np.linspace(0, 1, 50))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()


def test_rois_lie_where_they_are_and_point_up_or_down():
    figure = example_recording()
    rois = next(panel for panel in figure.axes if panel.get_xlabel() == "x (µm)")
    unknown, up, down = rois.collections
    assert [each.get_offsets().tolist() for each in (unknown, up, down)] == [[[5, 5]], [[0, 0]], [[10, 20]]]
    assert up.get_array() == [0.5] and down.get_array() == [-1] and up.get_sizes() < down.get_sizes()
    assert not np.array_equal(up.get_paths()[0].vertices, down.get_paths()[0].vertices)
    assert rois.yaxis_inverted()
    assert "log-odds of 5xFAD (▲ above, ▼ below the mean neuron)" in said(figure)


@pytest.mark.parametrize("centroids", [None, np.full((3, 2), NAN)])
def test_without_positions_there_is_no_map_of_rois(centroids):
    assert [panel.get_label() for panel in example_recording(centroids=centroids).axes] == ["", "<colorbar>"]


def test_neurons_without_a_position_are_counted():
    centroids = np.array([[0.0, 0], [NAN, NAN], [5, 5]])
    assert "1 without a position" in said(example_recording(centroids=centroids))


def test_curves_are_in_percent_and_the_explanation_comes_first():
    figure = example_removal()
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_array_equal(lines[EXPLANATION].get_xdata(), [0, 25, 50])
    np.testing.assert_array_equal(lines[EXPLANATION].get_ydata(), [3, 0, -1])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[0] == EXPLANATION and sorted(names) == sorted(lines)
    assert figure.axes[0].get_title("left") == "Simulated: gradients"
    assert "95 % interval" in said(figure) and len(figure.axes[0].collections) == len(lines)


def test_curves_of_few_animals_have_no_interval_and_it_is_said():
    figure = example_removal(width=None)
    assert "too few for an interval" in said(figure) and not figure.axes[0].collections


def test_curves_differ_in_line_or_marker_and_are_alike_in_all_panels():
    hidden, shown = example_removal().axes
    styles = {line.get_label(): (line.get_linestyle(), line.get_marker()) for line in hidden.lines}
    assert len(set(styles.values())) == len(styles) == 6
    assert all(styles[line.get_label()] == (line.get_linestyle(), line.get_marker()) for line in shown.lines)


def test_groups_are_drawn_with_each_animal_and_bins_that_differ_have_a_star():
    figure, compared = example_groups()
    upper, lower = figure.axes
    assert len(upper.lines) == 8 + 2
    first, second = (line for line in upper.lines if not line.get_label().startswith("_"))
    np.testing.assert_allclose([first.get_ydata(), second.get_ydata()], compared.means)
    assert first.get_linestyle() != second.get_linestyle() and first.get_marker() != second.get_marker()
    (star,) = [line for line in lower.lines if line.get_marker() == "*"]
    assert star.get_xdata().tolist() == [2]
    assert "5xFAD minus control" in said(figure) and "smallest p over all bins 0.029" in said(figure)


def test_groups_of_few_animals_have_no_p_and_it_is_said():
    figure, _ = example_groups(animals=2)
    assert "Fewer than 3 animals of a class: no p-value and no interval." in said(figure)
    assert "95 % interval" not in said(figure)


def test_bars_have_the_heights_the_intervals_and_a_hatch_for_each_aspect():
    (panel,) = example_shares().axes
    level, timing = panel.containers
    assert [bar.get_height() for bar in (*level, *timing)] == [0.5, 0.3, 0.1, 0.1]
    assert level[0].get_hatch() != timing[0].get_hatch()
    assert to_hex(level[0].get_facecolor()) != to_hex(timing[0].get_facecolor())
    ends = np.array([segment for lines in panel.collections for segment in lines.get_segments()])
    np.testing.assert_allclose(ends[:, :, 1], [[0.45, 0.6], [0.25, 0.4], [0.05, 0.2], [0.05, 0.2]])
    assert "95 % interval over animals" in panel.get_ylabel()
    nothing = example_shares(low=np.full((2, 2), NAN)).axes[0]
    assert "too few animals for an interval" in nothing.get_ylabel()
