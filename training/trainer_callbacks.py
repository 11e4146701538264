"""What `transformers.Trainer` has to be told beside a model, windows and a collator."""

from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class SetEpoch(TrainerCallback):
    """Numbers the epochs of windows, so that each draws masks of its own.

    Without it `Trainer` does so on one process only, and on several, or for a `Subset`, masks repeat each epoch.

    Args:
        dataset: Windows with `set_epoch`.

    Example:
        >>> trainer = Trainer(model, arguments, train_dataset=windows, callbacks=[SetEpoch(windows)], ...)
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.dataset.set_epoch(int(state.epoch))
