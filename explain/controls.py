"""Models that must be explained otherwise, and whether a model has learnt anything that could be explained.

    groups = tells_groups(model, windows)
    controls = control_models(model, windows)

A method may say much of a window and nothing of the model (Adebayo et al. 2018, arXiv:1810.03292). So it is also asked
about copies with random weights, and about heads that were trained on labels that say nothing. It cannot be asked
whether there is anything to explain: what integrated gradients say of random weights is true of those weights. That is
for `tells_groups` to find out.

Shapes: n windows, T frames, D hidden size, S subjects, H heads that are trained side by side, K classes.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from ..crossval.permutations import SIGNIFICANT, permutation_test
from ..dataset_scripts.wording import count
from ..masking import model_inputs
from ..modeling_neurt import NeurtForSequenceClassification
from .explained import ExplainedWindows, batches, logits_of
from .group_maps import subjects_of
from .recording_map import mean_in_cells

# The smallest number of copies that lets p be 0.05.
COPIES = 19
# Whether a random model happens to agree with the one that is explained is chance; with as many it averages out.
MODELS_IN_TURN = 8
RETRAINED = 4
TRAINING_STEPS, LEARNING_RATE = 300, 0.01


@dataclass(frozen=True)
class Groups:
    """Whether a model tells the groups of some animals apart, which is what there is to explain.

    Args:
        tells: Whether both p-values are at most 0.05.
        probability: What it gives the true class of an animal, mean over the animals of a class and then over
            classes; 1 / K by guessing, with K classes of the model.
        randomised: The same of copies with random weights.
        p_weights: Share of these models, the trained one among them, that do at least as well.
        p_labels: Share of labellings of the animals that fit the model at least as well as the true one.
        sentence: The same in words.
    """

    tells: bool
    probability: float
    randomised: tuple[float, ...]
    p_weights: float
    p_labels: float
    sentence: str


@dataclass(frozen=True, eq=False)
class ControlModels:
    """What a method is asked about beside the model itself.

    Args:
        randomised: Copies with random weights.
        relabelled: The model's encoder with heads trained on shuffled labels; none where there are no two classes.
        retrained: The same with heads trained on the true labels, which differ in their random start; none there too.
    """

    randomised: tuple[NeurtForSequenceClassification, ...]
    relabelled: tuple[NeurtForSequenceClassification, ...]
    retrained: tuple[NeurtForSequenceClassification, ...]


def tells_groups(
    model: NeurtForSequenceClassification,
    windows: ExplainedWindows,
    *,
    seed: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Groups | None:
    """Ask whether a model tells groups apart better than random weights do, and better than shuffled labels fit it.

    Either alone could be passed by luck. Where groups differ much, random weights may well separate them, and every
    second of such models calls them by the right names; the best of 20 it is in one case of 20. And few random weights
    answer differently for different animals, so that a model that has learnt something else altogether, and says it
    with confidence, may be the best of 20 by chance; other labels would then fit it as well.

    The score is the mean probability of the true class and not the log loss, which rewards a model that knows nothing
    for saying so less loudly than random weights do.

    Args:
        model: A classifier.
        windows: Of animals that it was not trained on; with others this says only that it has learnt their labels.
        seed: Of the weights and the labellings.
        progress: Goes over the models, as `tqdm` does.

    Returns:
        None where there are no two classes of animals.

    Raises:
        ValueError: If an animal is of two classes.
    """
    classes = _labels_of(windows)
    if classes is None:
        return None
    own = _subject_probabilities(model, windows)
    others = [
        _mean_over_classes(_subject_probabilities(randomised(model, seed + place), windows), classes)
        for place in progress(range(COPIES))
    ]
    test = permutation_test(lambda labels: _mean_over_classes(own, labels), classes, ("",) * len(classes), seed=seed)
    p_weights = (1 + sum(other >= test.statistic for other in others)) / (1 + COPIES)
    tells = max(p_weights, test.p_value) <= SIGNIFICANT
    sentence = (
        f"The model {'tells' if tells else 'is not shown to tell'} the groups apart: it gives the true class of an "
        f"animal a probability of {test.statistic:.2f} on average, {1 / own.shape[1]:.2f} by guessing "
        f"(against random weights p = {p_weights:.2g}, against shuffled labels p = {test.p_value:.2g})."
    )
    if test.num_labellings * SIGNIFICANT < 1:
        sentence += f" With {count(len(classes), 'animal')} no model could be shown to."
    return Groups(tells, test.statistic, tuple(others), p_weights, test.p_value, sentence)


def control_models(
    model: NeurtForSequenceClassification, windows: ExplainedWindows, *, seed: int = 0
) -> ControlModels:
    """Make the models that a method is asked about beside the one that is explained.

    Args:
        model: A classifier.
        windows: What new heads are trained on.
        seed: Of all draws.

    Raises:
        ValueError: If an animal is of two classes.
    """
    classes = _labels_of(windows)
    weights = tuple(randomised(model, seed + place) for place in range(MODELS_IN_TURN))
    if classes is None:
        return ControlModels(weights, (), ())
    rng = np.random.default_rng(seed)
    labels = [shuffle_over_animals(classes, rng) for _ in range(MODELS_IN_TURN)] + RETRAINED * [classes]
    heads = retrained_heads(model, windows, np.stack(labels), seed=seed)
    return ControlModels(weights, heads[:MODELS_IN_TURN], heads[MODELS_IN_TURN:])


def randomised(model: NeurtForSequenceClassification, seed: int) -> NeurtForSequenceClassification:
    """A model of the same configuration with new random weights, encoder and head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(model)(copy.deepcopy(model.config))
    return fresh.to(model.device).eval()


def shuffle_over_animals(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels that say as little of the true ones as the numbers of animals allow.

    The animals of each class are dealt all labels in turn. Labels that are merely permuted agree with the true ones by
    chance, often with most of them where animals are few.

    Args:
        classes: int (S,), of two classes at least.
        rng: Source of randomness.

    Returns:
        int (S,), not the true labels, and not one label for all.
    """
    names = np.unique(classes)
    while True:
        dealt = classes.copy()
        for name in names:
            members = rng.permutation(np.flatnonzero(classes == name))
            dealt[members] = names[(rng.integers(len(names)) + np.arange(len(members))) % len(names)]
        if len(np.unique(dealt)) > 1 and (dealt != classes).any():
            return dealt


def retrained_heads(
    model: NeurtForSequenceClassification, windows: ExplainedWindows, labels: np.ndarray, *, seed: int = 0
) -> tuple[NeurtForSequenceClassification, ...]:
    """Train new pooling queries and classifiers on what the model's encoder makes of windows; the encoder stays.

    All heads learn side by side from embeddings that are computed once, each from a random start of its own, as the
    model's own head began. In the loss of each, classes weigh the same, within a class each animal, and within an
    animal each window.

    Args:
        model: A classifier; it is not changed.
        windows: What is learnt from.
        labels: The class of each animal of `subjects_of`, for each head; int (H, S).
        seed: Of the random starts.

    Returns:
        H models.
    """
    _, animal = np.unique(windows.subjects, return_inverse=True)
    weights = np.stack([_balanced(each, animal) for each in labels])
    real = windows.inputs["attention_mask"].to(model.device).bool().unsqueeze(1)
    heads = _random_heads(model, len(labels), seed)
    _train(heads, _embeddings(model, windows), real, labels[:, animal], weights)
    return tuple(_with_head(model, *head) for head in zip(*heads, strict=True))


def _labels_of(windows: ExplainedWindows) -> np.ndarray | None:
    """The classes of the animals, int (S,); None where there are no two of them."""
    classes = None if windows.class_ids is None else subjects_of(windows)[1]
    return None if classes is None or len(np.unique(classes)) == 1 else classes


def _embeddings(model: NeurtForSequenceClassification, windows: ExplainedWindows) -> torch.Tensor:
    """(n, T, D)."""
    with torch.no_grad():
        found = [model.neurt(**model_inputs(batch, model.device)).embeddings for batch in batches(windows.inputs)]
    return torch.cat(found).float()


def _random_heads(model: NeurtForSequenceClassification, heads: int, seed: int) -> list[nn.Parameter]:
    """Pooling queries (H, D), classifier weights (H, K, D) and biases (H, K), as new models have them."""
    fresh = [randomised(model, seed + head) for head in range(heads)]
    parts = [(each.pooling_query, each.classifier.weight, each.classifier.bias) for each in fresh]
    return [nn.Parameter(torch.stack(part).detach()) for part in zip(*parts, strict=True)]


def _balanced(labels: np.ndarray, animal: np.ndarray) -> np.ndarray:
    """The weight of each window, from the labels (S,) of the animals and the animal (n,) of each window; sums to 1."""
    names, label, animals = np.unique(labels, return_inverse=True, return_counts=True)
    return 1 / (len(names) * animals[label] * np.bincount(animal))[animal]


def _train(
    head: Sequence[nn.Parameter], embeddings: torch.Tensor, real: torch.Tensor, labels: np.ndarray, weights: np.ndarray
):
    """Minimise the weighted cross-entropy of every head; real (n, 1, T), labels and weights (H, n)."""
    query, weight, bias = head
    labels, weights = (torch.as_tensor(array, device=query.device).flatten() for array in (labels, weights))
    optimizer = torch.optim.Adam(head, LEARNING_RATE)
    for _ in range(TRAINING_STEPS):
        scores = (embeddings @ query.T).transpose(1, 2).masked_fill(~real, -torch.inf)
        pooled = scores.softmax(-1) @ embeddings
        logits = torch.einsum("nhd,hkd->hnk", pooled, weight) + bias.unsqueeze(1)
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), labels, reduction="none")
        optimizer.zero_grad()
        (losses * weights).sum().backward()
        optimizer.step()


def _with_head(
    model: NeurtForSequenceClassification, query: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> NeurtForSequenceClassification:
    """A copy of the model with another head."""
    changed = copy.deepcopy(model).eval()
    with torch.no_grad():
        changed.pooling_query.copy_(query)
        changed.classifier.weight.copy_(weight)
        changed.classifier.bias.copy_(bias)
    return changed


def _subject_probabilities(model: NeurtForSequenceClassification, windows: ExplainedWindows) -> np.ndarray:
    """Probabilities (S, K) of animals, by the mean logits of their windows."""
    _, animal = np.unique(windows.subjects, return_inverse=True)
    logits = [mean_in_cells(of_class, animal, animal.max() + 1) for of_class in logits_of(model, windows.inputs).T]
    return softmax(np.stack(logits, axis=1), axis=1)


def _mean_over_classes(probabilities: np.ndarray, classes: np.ndarray) -> float:
    """The probability (S, K) of the true class, averaged over the animals of a class and then over classes."""
    own = probabilities[np.arange(len(classes)), classes]
    return float(np.mean([own[classes == name].mean() for name in np.unique(classes)]))
