"""Options of a training run: who trains and who is tested, what is learned, and how to train."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

PRECISIONS = ("no", "bf16", "fp16")
SCHEDULES = ("cosine", "linear", "constant_with_warmup")
FREEZE = ("none", "embeddings", "encoder")


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Args:
        epochs: Passes over the training windows.
        batch_size: Windows in one optimiser step, over all processes and accumulation steps together, so that the
            same number means the same training everywhere.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Of AdamW, for matrices; biases, norms and single vectors do not decay.
        warmup_fraction: Share of the steps over which the learning rate rises from 0.
        schedule: What the learning rate does after that: "cosine", "linear" or "constant_with_warmup".
        max_gradient_norm: Gradients are clipped to this norm.
        accumulation_steps: Pieces a process cuts its share of a batch into, to save memory; twice as many and so on
            where memory does not suffice.
        mixed_precision: "no", "bf16" or "fp16".
        patience: Epochs without a lower validation loss after which training stops; None goes on to the last. The
            schedule is that of all `epochs`.
        compile: Whether to compile the model with `torch.compile`.
        log_with: Trackers to log to, as Accelerate calls them, for example ("tensorboard",).
        checkpoint_every: Steps between checkpoints, from which an interrupted run goes on.
        num_workers: Processes that prepare batches; 0 is fastest for recordings that fit in memory.
        seed: Seed of everything random.

    Raises:
        ValueError: If a value is out of its range.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_fraction: float = 0.05
    schedule: str = "cosine"
    max_gradient_norm: float = 1.0
    accumulation_steps: int = 1
    mixed_precision: str = "no"
    patience: int | None = None
    compile: bool = False
    log_with: Sequence[str] = ()
    checkpoint_every: int = 500
    num_workers: int = 0
    seed: int = 0

    def __post_init__(self):
        for name in ("epochs", "batch_size", "accumulation_steps", "checkpoint_every"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "max_gradient_norm"):
            self._check(name, 0 < getattr(self, name) < math.inf, "above 0")
        for name in ("weight_decay", "num_workers", "seed"):
            self._check(name, 0 <= getattr(self, name) < math.inf, "at least 0")
        self._check("warmup_fraction", 0 <= self.warmup_fraction <= 1, "from 0 to 1")
        self._check("patience", self.patience is None or self.patience >= 1, "at least 1")
        self._check("schedule", self.schedule in SCHEDULES, f"among {', '.join(SCHEDULES)}")
        self._check("mixed_precision", self.mixed_precision in PRECISIONS, f"among {', '.join(PRECISIONS)}")

    def _check(self, name: str, is_fine: bool, expected: str):
        if not is_fine:
            raise ValueError(f"expected {name} {expected}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class SplitOptions:
    """Who trains and who is tested; see `split_recordings`.

    Args:
        split_by: "subject" or "session".
        test: Ids to hold out; if empty, those of the build's test split, or else `test_fraction` of them, drawn.
        test_fraction: Share of ids to hold out.
        validation_fraction: Share of the other ids that chooses the checkpoint; 0 keeps the last one.
        allow_shared_subjects: Train although a test animal is also in training.

    Raises:
        ValueError: If a share is out of its range.
    """

    split_by: str = "subject"
    test: Sequence[str] = ()
    test_fraction: float = 0.2
    validation_fraction: float = 0.0
    allow_shared_subjects: bool = False

    def __post_init__(self):
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"expected test_fraction above 0 and below 1, got {self.test_fraction}")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"expected validation_fraction from 0 to below 1, got {self.validation_fraction}")


@dataclass(frozen=True)
class FinetuneOptions:
    """What fine-tuning adds to training.

    Args:
        label: Label to learn, a column of the build.
        freeze: "none", "embeddings" or "encoder": what keeps its pretrained weights.
        layer_decay: Factor on the learning rate from each layer to the one below it (the original's 0.9); 1 for none.
        head_learning_rate: Learning rate of the pooling query and the classifier.

    Raises:
        ValueError: If a value is out of its range.
    """

    label: str
    freeze: str = "none"
    layer_decay: float = 0.9
    head_learning_rate: float = 1e-3

    def __post_init__(self):
        if self.freeze not in FREEZE:
            raise ValueError(f"expected freeze among {', '.join(FREEZE)}, got {self.freeze!r}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"expected layer_decay above 0 and at most 1, got {self.layer_decay}")
        if not 0 < self.head_learning_rate < math.inf:
            raise ValueError(f"expected head_learning_rate above 0, got {self.head_learning_rate}")
