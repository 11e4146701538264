"""What separates groups: aspects of windows, taken away by hand, and models of which it is known what they read."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from neurt.explain.aspects import (
    ALL_CHANNELS,
    COLUMNS,
    neutralise,
    random_order,
    separate,
    take_apart,
    turned,
    usual_at_level,
)
from neurt.explain.explained import ExplainedWindows
from planted_windows import new_classifier

FRAMES, ANIMALS, OF_AN_ANIMAL = 40, 12, 10
OWN, NEAR = 0, 1


class Reads(torch.nn.Module):
    """A model whose log-odds of class 1 are a function of the values (n, T, C)."""

    device, num_labels = torch.device("cpu"), 2
    config = SimpleNamespace(id2label={0: "control", 1: "planted"})

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, input_values, **others):
        said = self.function(input_values)
        return SimpleNamespace(logits=torch.stack([torch.zeros_like(said), said], dim=1))


def level(values):
    return values[..., OWN].mean(1)


def deviation(values):
    return values[..., OWN].std(1, correction=0)


def smoothness(values):
    course = values[..., OWN] - values[..., OWN].mean(1, keepdim=True)
    return (course[:, 1:] * course[:, :-1]).mean(1) / course.square().mean(1)


def likeness(values):
    """The correlation of the own trace and the near mean."""
    centered = values - values.mean(1, keepdim=True)
    own, near = centered[..., OWN], centered[..., NEAR]
    return (own * near).mean(1) / (own.square().mean(1) * near.square().mean(1)).sqrt()


def some_windows(seed=0, change=None, classes=None):
    """Of animals of two classes: noise about a level; `change(values, ones, rng)` makes class 1 differ."""
    rng = np.random.default_rng(seed)
    animal = np.repeat(np.arange(ANIMALS), OF_AN_ANIMAL)
    values = rng.normal(size=(len(animal), FRAMES, 5)) + rng.uniform(1, 2, size=(len(animal), 1, 5))
    if change is not None:
        values = change(values, animal % 2 == 1, rng)
    return ExplainedWindows(
        inputs={
            "input_values": torch.tensor(values, dtype=torch.float32),
            "attention_mask": torch.ones(len(animal), FRAMES, dtype=torch.long),
        },
        recording=animal,
        recording_ids=tuple(f"r{i}" for i in range(ANIMALS)),
        subject_ids=tuple(f"m{i}" for i in range(ANIMALS)),
        class_ids=np.arange(ANIMALS) % 2 if classes is None else classes,
        roi_ids=("a",) * len(animal),
        neuron_index=np.zeros(len(animal), int),
        start_frame=np.tile(np.arange(OF_AN_ANIMAL) * FRAMES, ANIMALS),
    )


def higher(values, ones, rng):
    values[ones, :, OWN] += 1
    return values


def wider(values, ones, rng):
    means = values[ones].mean(1, keepdims=True)
    values[ones, :, OWN] = (means + 2 * (values[ones] - means))[..., OWN]
    return values


def smoother(values, ones, rng):
    values[ones, 1:, OWN] = (values[ones, 1:, OWN] + values[ones, :-1, OWN]) / np.sqrt(2)
    return values


def more_alike(values, ones, rng):
    values[ones, :, NEAR] = values[ones, :, OWN] + 0.5 * rng.normal(size=values[ones, :, OWN].shape)
    return values


def more_active(values, ones, rng):
    """Gains vary between windows, and are larger in class 1: level and deviation go together."""
    gains = rng.lognormal(0, 0.5, size=(len(values), 1)) * np.where(ones, 2.0, 1.0)[:, None]
    values[..., OWN] = gains * (2 + 0.5 * values[..., OWN])
    return values


# What the sentence says, of models of which it is known what they read.


@pytest.mark.parametrize(
    ("change", "reads", "aspect"),
    [
        (higher, level, "level"),
        (wider, deviation, "variability"),
        (smoother, smoothness, "timing"),
        (more_active, level, "level"),
        (more_active, deviation, "level"),
    ],
)
def test_the_aspect_that_differs_is_named(change, reads, aspect):
    found = separate(Reads(reads), some_windows(change=change))
    assert (found.channel, found.aspect) == ("own", aspect)
    assert found.sentence.startswith(f"The groups are told apart by the {aspect} of the own trace: neutralising it ")
    lost = {name: estimate.mean for name, estimate in found.lost["own"].items()}
    assert lost.pop(aspect) == pytest.approx(1, abs=0.2) and lost.pop("everything") == pytest.approx(1, abs=0.2)
    others = {name: value for name, value in lost.items() if (aspect, name) != ("timing", "coupling")}
    assert others == pytest.approx(dict.fromkeys(others, 0), abs=0.2)
    assert all(each.mean == pytest.approx(0) for name in ("near mean", "far SD") for each in found.lost[name].values())
    assert found.lost[ALL_CHANNELS][aspect].mean == pytest.approx(found.lost["own"][aspect].mean, abs=0.1)


def test_what_two_channels_have_in_common_belongs_to_neither_alone():
    found = separate(Reads(likeness), some_windows(change=more_alike))
    for channel in ("own", "near mean"):
        assert found.lost[channel]["coupling"].mean == pytest.approx(1, abs=0.2)
    assert found.channel == ALL_CHANNELS
    # All channels in the same random order: what they have in common remains.
    assert found.lost[ALL_CHANNELS]["timing"].mean == pytest.approx(0, abs=1e-3)
    assert found.lost[ALL_CHANNELS]["coupling"].mean == pytest.approx(1, abs=0.2)
    assert "No aspect of all channels together alone tells the groups apart" in found.sentence


def test_two_aspects_alike_are_not_one():
    def both(values, ones, rng):
        values = wider(higher(values, ones, rng), ones, rng)
        values[..., OWN] += rng.normal(0, 0.7, size=ANIMALS).repeat(OF_AN_ANIMAL)[:, None]
        return values

    found = separate(Reads(lambda values: level(values) + deviation(values)), some_windows(change=both))
    assert found.channel == "own" and found.aspect is None
    assert min(found.lost["own"][aspect].low for aspect in ("level", "variability")) > 0
    assert found.sentence.startswith("No aspect of the own trace alone tells the groups apart: of the gap of")


def test_nothing_separates_groups_that_do_not_differ():
    found = separate(Reads(level), some_windows())
    assert found.gap.low < 0 < found.gap.high
    assert found.sentence.startswith("The model does not tell the groups apart here")
    # There are no shares of a gap that may be none.
    assert found.lost == {} and found.aspect is None and found.to_markdown() == found.sentence
    silent = separate(Reads(lambda values: torch.zeros(len(values))), some_windows(change=higher))
    assert silent.gap.mean == 0 and silent.lost == {}


def test_the_gap_is_that_of_animals_and_not_of_windows():
    windows = some_windows(change=higher)
    kept = windows[np.concatenate([np.arange(4), np.arange(10, 120)])]  # six windows fewer of the first animal
    of_windows = kept.inputs["input_values"][..., OWN].mean(1).numpy()
    means = [of_windows[kept.subjects == f"m{i}"].mean() for i in range(ANIMALS)]
    found = separate(Reads(level), kept)
    assert found.gap.mean == pytest.approx(np.mean(means[1::2]) - np.mean(means[::2]), rel=1e-5)
    assert found.num_animals == (6, 6)


def test_tables_hold_every_channel_and_aspect():
    found = separate(Reads(level), some_windows(change=higher))
    table = found.to_markdown()
    assert found.sentence in table and "6 control, 6 planted" in table
    assert f"| channel | {' | '.join(COLUMNS)} |" in table
    cell = found.lost["own"]["level"]
    assert f"| own | {100 * cell.mean:.0f} % [{100 * cell.low:.0f}, {100 * cell.high:.0f}] |" in table
    again = json.loads(json.dumps(found.to_dict()))
    assert again["lost"]["own"]["level"]["mean"] == cell.mean and again["sentence"] == found.sentence


def test_one_seed_gives_one_answer():
    windows = some_windows(change=smoother)
    first, again, other = (separate(Reads(smoothness), windows, seed=seed) for seed in (0, 0, 1))
    assert first.to_dict() == again.to_dict() != other.to_dict()


def test_other_than_two_classes_are_refused():
    with pytest.raises(ValueError, match="expected a model of two classes, .* got 3 classes"):
        separate(new_classifier(num_labels=3), some_windows())
    with pytest.raises(ValueError, match="got 2 classes and 12, 0 animals"):
        separate(Reads(level), some_windows(classes=np.zeros(ANIMALS, int)))
    windows = some_windows()
    with pytest.raises(ValueError, match="3 animals of each, .* got 2 classes and 2, 3 animals"):
        separate(Reads(level), windows[np.isin(windows.recording, [0, 1, 2, 3, 5])])
    with pytest.raises(ValueError, match="recordings of one class for each animal, got two for 'm0'"):
        separate(Reads(level), dataclasses.replace(windows, subject_ids=("m0", *windows.subject_ids[:-1])))


# Aspects of windows.


@pytest.fixture
def padded():
    """The last frames of the second window are padding, and its far channels absent."""
    windows = some_windows()
    values, real = windows.inputs["input_values"].clone(), windows.inputs["attention_mask"].clone()
    absent = torch.zeros_like(values, dtype=torch.bool)
    absent[1, :, 3:], real[1, -7:] = True, 0
    values[1, :, 3:], values[1, -7:] = 0, 0
    inputs = {"input_values": values, "attention_mask": real, "bool_masked_pos": absent}
    return ExplainedWindows(**{**vars(windows), "inputs": inputs})


def moments(values, window, channel, frames=FRAMES):
    return values[window, :frames, channel].mean(), values[window, :frames, channel].std()


def test_windows_taken_apart_and_put_together_are_the_same(padded):
    np.testing.assert_allclose(take_apart(padded).together(), padded.inputs["input_values"], atol=1e-6)


@pytest.mark.parametrize("aspect", COLUMNS)
def test_padding_absent_and_other_channels_stay(padded, aspect):
    before = padded.inputs["input_values"].numpy()
    after = neutralise(take_apart(padded), aspect, np.arange(5) != 2).together()
    assert (after[1, -7:] == 0).all() and (after[1, :, 3:] == 0).all()
    np.testing.assert_allclose(after[..., 2], before[..., 2], atol=1e-6)
    assert np.abs(after - before)[1, :33, :2].max() > 0.01


def test_without_level_all_windows_have_that_of_the_animals(padded):
    values = padded.inputs["input_values"].numpy()
    of_windows = [moments(values, window, OWN, 33 if window == 1 else FRAMES)[0] for window in range(len(values))]
    common = np.mean([np.mean(of_windows[10 * animal : 10 * animal + 10]) for animal in range(ANIMALS)])
    after = neutralise(take_apart(padded), "level", np.ones(5, bool)).together()
    assert moments(after, 0, OWN)[0] == pytest.approx(common, rel=1e-5)
    assert moments(after, 1, OWN, 33)[0] == pytest.approx(common, rel=1e-5)


def test_deviation_follows_the_level_of_the_animal_as_is_usual():
    # The logarithm of the deviation is the level, in one class and but for a factor of 1.5 in the other.
    def usual(values, ones, rng):
        levels = rng.uniform(0, 1, size=len(values))
        own = values[..., OWN] - values[..., OWN].mean(1, keepdims=True)
        own *= np.exp(levels + np.log(1.5) * ones)[:, None] / own.std(1, keepdims=True)
        values[..., OWN] = levels[:, None] + own
        return values

    windows = some_windows(change=usual)
    pieces, ones = take_apart(windows), windows.classes == 1
    levels = pieces.level[:, OWN]
    of_animal = levels.reshape(ANIMALS, OF_AN_ANIMAL).mean(1).repeat(OF_AN_ANIMAL)
    for aspect, level, deviation in (
        ("level", of_animal.mean(), np.exp(levels + of_animal.mean() - of_animal) * np.where(ones, 1.5, 1)),
        ("variability", levels, np.exp(of_animal) * np.sqrt(1.5)),
        ("everything", of_animal.mean(), np.exp(of_animal.mean()) * np.sqrt(1.5)),
    ):
        changed = neutralise(pieces, aspect, np.ones(5, bool))
        np.testing.assert_allclose(changed.level[:, OWN], level, rtol=1e-4)
        np.testing.assert_allclose(changed.deviation[:, OWN], deviation, rtol=1e-4)


def test_few_windows_share_one_usual_at_level():
    values = np.array([[1.0, 5.0], [2.0, 5.0], [4.0, 6.0], [8.0, 6.0]])
    usually = usual_at_level(np.array([0.0, 1.0, 2.0, 3.0]), values, np.array([0, 1, 0, 1]))
    np.testing.assert_allclose(usually(np.array([-5.0, 2.0, 9.0])), np.tile(values.mean(0), (3, 1)))


def test_what_only_one_class_has_is_as_usual_as_there():
    usually = usual_at_level(np.arange(4.0), np.full((4, 1), 5.0), np.ones(4, dtype=int))
    np.testing.assert_allclose(usually(np.array([1.0, 2.0])), 5)


def test_a_flat_channel_stays_flat():
    def silent(values, ones, rng):
        values[:3, :, OWN] = 0.5
        return values

    pieces = take_apart(some_windows(change=silent))
    for aspect in COLUMNS:
        after = neutralise(pieces, aspect, np.ones(5, bool)).together()
        assert np.isfinite(after).all() and np.ptp(after[:3, :, OWN], axis=1).max() < 1e-6


def test_random_order_keeps_the_frames_of_all_channels_together(padded):
    values = padded.inputs["input_values"].numpy()
    after = neutralise(take_apart(padded), "timing", np.ones(5, bool)).together()
    for window, frames in ((0, FRAMES), (1, 33)):
        order = np.argsort(values[window, :frames, OWN])
        again = np.argsort(after[window, :frames, OWN])
        np.testing.assert_allclose(after[window, again, :3], values[window, order, :3], atol=1e-5)
    assert np.abs(np.corrcoef(after[0, 1:, OWN], after[0, :-1, OWN])[0, 1]) < 0.5


def test_turned_channels_keep_their_course_but_for_the_seam(padded):
    visible = take_apart(padded).visible
    order = turned(visible, seed=0)
    for window, channel, frames in ((0, 0, FRAMES), (0, 1, FRAMES), (1, 0, 33)):
        steps = np.diff(order[window, :frames, channel]) % frames
        assert (steps == 1).all() and order[window, 0, channel] != 0
    np.testing.assert_array_equal(order[1, 33:, 0], np.arange(33, FRAMES))
    assert (order[0, :, 0] != order[0, :, 1]).any() and (order[2, :, 0] != order[0, :, 0]).any()


def test_random_orders_are_permutations_of_what_is_visible(padded):
    order = random_order(take_apart(padded).visible, seed=0)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.broadcast_to(np.arange(FRAMES)[:, None], order.shape))
    np.testing.assert_array_equal(order[1, 33:, 0], np.arange(33, FRAMES))
    assert (order[0] == order[0, :, :1]).all() and (order[0] != order[2]).any()
