"""Options out of their range are refused where they are stated."""

import re

import pytest
from neurt.training.options import FinetuneOptions, SplitOptions


@pytest.mark.parametrize(
    ("options", "values", "message"),
    [
        (SplitOptions, {"test_fraction": 1.0}, "expected test_fraction above 0 and below 1, got 1.0"),
        (SplitOptions, {"validation_fraction": -0.1}, "expected validation_fraction from 0 to below 1, got -0.1"),
        (FinetuneOptions, {"freeze": "head"}, "expected freeze among none, embeddings, encoder, got 'head'"),
        (FinetuneOptions, {"layer_decay": 0}, "expected layer_decay above 0 and at most 1, got 0"),
        (FinetuneOptions, {"head_learning_rate": 0}, "expected head_learning_rate above 0, got 0"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        options(**{"label": "group", **values} if options is FinetuneOptions else values)
