"""The heads, windows and collators work with transformers.Trainer, whose traps are measured here."""

import numpy as np
import pytest
import torch
from neurt import (
    MaskedSignalCollator,
    NeurtForMaskedSignalModeling,
    NeurtForSequenceClassification,
    NeurtProcessor,
)
from neurt.dataset_scripts.parquet_build import read_build
from neurt.dataset_scripts.windows import WindowDataset
from neurt.masking import HIDDEN_CHANNELS, MASK_TASKS, collate_windows, model_inputs
from neurt.train import TrainingOptions
from neurt.training import loop as training_loop
from neurt.training.batches import epoch_batches, inputs_and_labels
from neurt.training.loop import fit
from neurt.training.trainer_callbacks import SetEpoch
from tiny_training import assert_same_weights, largest_difference
from torch.utils.data import SequentialSampler, Subset
from transformers import Trainer, TrainingArguments

BATCH = 32


@pytest.fixture(scope="session")
def recordings(build):
    return list(read_build(build))


@pytest.fixture(scope="session")
def windows(recordings):
    return WindowDataset(recordings, NeurtProcessor(window_length=40))


@pytest.fixture(scope="session")
def labelled_windows(recordings):
    processor = NeurtProcessor(window_length=40)
    return WindowDataset(recordings, processor, label="group", label2id={"control": 0, "planted": 1})


@pytest.fixture
def masked_model(tiny_model):
    """A model whose first loss is not that of interpolation alone, as it would be with its decoder at zero."""
    return lambda: tiny_model(predict_correction=False)


@pytest.fixture
def tiny_classifier(tiny_model):
    def make():
        config = tiny_model().config
        config.id2label = {0: "control", 1: "planted"}
        torch.manual_seed(0)
        return NeurtForSequenceClassification(config)

    return make


@pytest.fixture
def trainer(tmp_path):
    """A Trainer of one step."""

    def make(model, dataset, collate, compute_metrics=None, **options):
        defaults = {"max_steps": 1, "per_device_train_batch_size": BATCH, "per_device_eval_batch_size": BATCH}
        defaults |= {"remove_unused_columns": False, "logging_steps": 1, "use_cpu": True}
        defaults |= {"report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
        arguments = TrainingArguments(tmp_path / "trainer", **{**defaults, **options})
        return Trainer(
            model,
            arguments,
            data_collator=collate,
            train_dataset=dataset,
            eval_dataset=dataset,
            compute_metrics=compute_metrics,
        )

    return make


class WholeWindows(Subset):
    """The first windows of a data set that are not padded: as many as make a batch, or `count`.

    The loop divides by the hidden values of the whole batch, Trainer averages its pieces: alike for equal windows.
    """

    def __init__(self, dataset, count=BATCH):
        whole = [index for index in range(len(dataset)) if dataset[index]["attention_mask"].all()]
        super().__init__(dataset, whole[:count])

    def set_epoch(self, epoch):
        self.dataset.set_epoch(epoch)


def first_loss(trainer):
    trainer.train()
    return trainer.state.log_history[0]["loss"]


def test_the_masked_model_has_an_eval_loss_because_labels_are_in_the_batch(trainer, masked_model, windows):
    model, collate = masked_model(), MaskedSignalCollator()
    evaluated = trainer(model, windows, collate).evaluate()

    def without_labels(batch):
        return {name: value for name, value in collate(batch).items() if name != "labels"}

    model.eval()
    losses = []
    for first in range(0, len(windows), BATCH):
        batch = collate([windows[i] for i in range(first, min(first + BATCH, len(windows)))])
        with torch.no_grad():
            output = model(
                batch["input_values"],
                batch["attention_mask"],
                batch["bool_masked_pos"],
                sampling_rate=batch["sampling_rate"],
            )
        losses += [output.loss.item()] * len(batch["labels"])
    assert evaluated["eval_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert "eval_loss" not in trainer(model, windows, without_labels).evaluate()


@pytest.mark.parametrize("steps", [1, 4])
def test_the_loss_is_that_of_the_loop_and_accumulation_does_not_multiply_it(
    trainer, masked_model, windows, tmp_path, steps
):
    batch, model = WholeWindows(windows), masked_model()
    options = TrainingOptions(epochs=1, batch_size=BATCH)
    log = fit(model, [{"params": list(model.parameters())}], batch, MaskedSignalCollator(), options, tmp_path / "loop")
    pieces = {"gradient_accumulation_steps": steps, "per_device_train_batch_size": BATCH // steps}
    loss = first_loss(trainer(masked_model(), batch, MaskedSignalCollator(), **pieces))
    assert loss == pytest.approx(log[0]["loss"], rel=1e-4)


def test_thirty_steps_have_the_losses_of_the_loop_on_the_same_batches(
    trainer, masked_model, windows, tmp_path, monkeypatch
):
    def step(run, batch, step=training_loop._step):
        expected.append(step(run, batch))
        return expected[-1]

    def compute_loss(model, inputs, *args, **kwargs):
        output = model(**inputs_and_labels(inputs, "cpu"))
        losses.append(output.loss.item())
        return output.loss

    expected, losses, one, other = [], [], masked_model(), masked_model()
    monkeypatch.setattr(training_loop, "_step", step)
    tasks = dict.fromkeys(MASK_TASKS, 1)
    options = TrainingOptions(epochs=6, batch_size=24, schedule="constant_with_warmup", warmup_fraction=0)
    subset, collate = WholeWindows(windows, 5 * 24), MaskedSignalCollator(tasks=tasks)
    fit(one, [{"params": list(one.parameters())}], subset, collate, options, tmp_path / "loop")

    met = []
    for epoch in range(6):
        subset.set_epoch(epoch)
        met += [subset[index] for index in epoch_batches(len(subset), 24, seed=0, epoch=epoch).ravel()]
    same = {"learning_rate": 1e-3, "weight_decay": 0.01, "lr_scheduler_type": "constant"}
    made = trainer(other, met, collate, max_steps=30, per_device_train_batch_size=24, **same)
    monkeypatch.setattr(made, "compute_loss", compute_loss)
    monkeypatch.setattr(made, "_get_train_sampler", lambda *args: SequentialSampler(met))
    made.train()
    assert len(losses) == len(expected) == 30 and losses[-1] < losses[0]
    assert losses == pytest.approx(expected, abs=1e-5)
    assert largest_difference(one, other) < 1e-5


def test_a_model_that_accepted_loss_arguments_would_have_another_loss(trainer, masked_model, windows, monkeypatch):
    pieces = {"gradient_accumulation_steps": 4, "per_device_train_batch_size": BATCH // 4}
    expected = first_loss(trainer(masked_model(), WholeWindows(windows), MaskedSignalCollator(), **pieces))
    monkeypatch.setattr(NeurtForMaskedSignalModeling, "accepts_loss_kwargs", True)
    other = first_loss(trainer(masked_model(), WholeWindows(windows), MaskedSignalCollator(), **pieces))
    assert abs(other / expected - 1) > 0.5


def test_a_mixture_of_tasks_teaches_to_fill_whole_channels_which_interpolation_cannot(trainer, tiny_model, windows):
    tasks = dict.fromkeys(MASK_TASKS, 1)
    model = tiny_model()
    batches = {task: MaskedSignalCollator(1, tasks={task: 1})([windows[i] for i in range(64)]) for task in tasks}

    def losses():
        with torch.no_grad():
            return {
                task: float(model(**model_inputs(b, "cpu"), labels=b["labels"]).loss) for task, b in batches.items()
            }

    before = losses()
    trainer(model, windows, MaskedSignalCollator(tasks=tasks), max_steps=120, learning_rate=3e-3).train()
    after = losses()
    # A new model fills spans and forecasts by interpolation, which takes longer to beat.
    assert all(after[task] < 0.9 * before[task] for task in HIDDEN_CHANNELS), (before, after)


def test_predictions_are_the_reconstruction_alone(trainer, tiny_model, windows):
    prediction = trainer(tiny_model(), windows, MaskedSignalCollator()).predict(windows)
    assert isinstance(prediction.predictions, np.ndarray)
    assert prediction.predictions.shape == prediction.label_ids.shape == (len(windows), 40, 5)


def test_without_the_ignored_keys_predictions_would_be_a_tuple(trainer, tiny_classifier, labelled_windows):
    model = tiny_classifier()
    made = trainer(model, labelled_windows, collate_windows)
    assert isinstance(made.predict(labelled_windows).predictions, np.ndarray)
    assert isinstance(made.predict(labelled_windows, ignore_keys=[]).predictions, tuple)


def test_dropping_unused_columns_is_refused_in_plain_words(trainer, tiny_model, windows):
    with pytest.raises(ValueError, match=r"set TrainingArguments\(remove_unused_columns=False\)"):
        trainer(tiny_model(), windows, MaskedSignalCollator(), remove_unused_columns=True).train()


def test_a_classifier_trains_is_scored_by_compute_metrics_saved_and_opened(
    trainer, tiny_classifier, labelled_windows, tmp_path
):
    def accuracy(prediction):
        return {"accuracy": (prediction.predictions.argmax(-1) == prediction.label_ids).mean()}

    model = tiny_classifier()
    made = trainer(model, labelled_windows, collate_windows, accuracy, max_steps=3)
    made.train()
    evaluated = made.evaluate()
    predicted = made.predict(labelled_windows).predictions
    labels = np.array([labelled_windows[i]["labels"] for i in range(len(labelled_windows))])
    assert predicted.shape == (len(labelled_windows), 2)
    assert evaluated["eval_accuracy"] == (predicted.argmax(-1) == labels).mean()
    logits = torch.tensor(predicted)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
    assert evaluated["eval_loss"] == pytest.approx(expected.item(), rel=1e-5)

    made.save_model(tmp_path / "saved")
    opened = NeurtForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert opened.config.id2label == {0: "control", 1: "planted"}
    assert_same_weights(opened, model)


def test_dropping_unused_columns_is_harmless_to_a_classifier(trainer, tiny_classifier, labelled_windows):
    batch = WholeWindows(labelled_windows)
    kept = first_loss(trainer(tiny_classifier(), batch, collate_windows))
    assert first_loss(trainer(tiny_classifier(), batch, collate_windows, remove_unused_columns=True)) == kept


def test_a_masked_model_is_saved_and_opened(trainer, tiny_model, windows, tmp_path):
    model = tiny_model()
    made = trainer(model, windows, MaskedSignalCollator(), max_steps=2)
    made.train()
    made.save_model(tmp_path / "saved")
    opened = NeurtForMaskedSignalModeling.from_pretrained(tmp_path / "saved")
    assert_same_weights(opened, model)
    assert not torch.equal(opened.decoder.weight, tiny_model().decoder.weight)


@pytest.mark.parametrize(("told", "different"), [(True, 3), (False, 1)])
def test_masks_are_drawn_anew_in_each_epoch_where_trainer_does_not_reach_the_data_set(
    trainer, tiny_model, recordings, told, different
):
    masks, collate = [], MaskedSignalCollator()

    def watched(windows):
        batch = collate(windows)
        masks.append(batch["bool_masked_pos"].sum(0).tolist())
        return batch

    windows = WindowDataset(recordings, NeurtProcessor(window_length=40))
    made = trainer(tiny_model(), Subset(windows, range(BATCH)), watched, max_steps=3)
    if told:
        made.add_callback(SetEpoch(windows))
    made.train()
    assert len(masks) == 3 and len({str(mask) for mask in masks}) == different
