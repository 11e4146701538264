"""bertviz's views of the attention within one window: in a notebook, or as a page that needs no network.

attention_view(model, processor(traces, centroids, sampling_rate=5.0, coordinate_unit="um"), view="head")
"""

import base64
import functools
import gzip
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bertviz
import numpy as np
from markupsafe import Markup

from ..loading import load_processor, load_quietly, name_of
from ..modeling_neurt import NeurtModel, NeurtPreTrainedModel
from ..writing_aside import file_aside, require_new
from .attention_bins import BinnedAttention, bin_attention, hidden_frames
from .one_window import OneWindow, find_window
from .page import ASSETS, template

BINS = 64
MOST_BINS = 128  # more make pages of over 5 MB
# The rows of bertviz's model view are high where heads are few: 16 give a page of a few screens.
MODEL_VIEW_BINS = 16
VIEWS = {"head": bertviz.head_view, "model": functools.partial(bertviz.model_view, display_mode="light")}
SCRIPTS = ("d3.min.js", "jquery.min.js")  # what bertviz would fetch
ROW_HEIGHT, ROWS_ABOVE = 22.5, 3  # of the head view, in pixels and rows
MODEL_VIEW_HEIGHT = 600  # the rest is scrolled to


@dataclass(frozen=True, eq=False)
class AttentionView:
    """One of bertviz's views. Notebooks draw it where it is the last line of a cell, without a network.

    Args:
        page: An HTML page of its own.
        height: In pixels.
    """

    page: str = field(repr=False)
    height: int

    def _repr_html_(self) -> str:
        # In a frame of its own no script of a notebook is in the way, and none of these is in theirs.
        packed = base64.b64encode(gzip.compress(self.page.encode(), mtime=0)).decode("ascii")
        frame = html.escape(template("unpack.html").render(packed=packed))
        style = f"width: 100%; height: {self.height}px; border: 0"
        return f'<iframe srcdoc="{frame}" sandbox="allow-scripts" style="{style}"></iframe>'


def attention_view(
    model: NeurtPreTrainedModel, inputs: Mapping[str, Any], *, row: int = 0, view: str = "head", bins: int = BINS
) -> AttentionView:
    """The attention within one window, for a notebook.

    Args:
        model: Any NEuRT model, loaded with `attn_implementation="eager"`.
        inputs: A batch of windows, as `NeurtProcessor` gives it.
        row: Which window of the batch.
        view: "head" or "model", bertviz's views.
        bins: Most time bins that the frames are pooled into.

    Raises:
        ValueError: If there is no such view, or as `bin_attention`.
    """
    if view not in VIEWS:
        raise ValueError(f"expected a view among {', '.join(VIEWS)}, got {view!r}")
    binned = bin_attention(model, inputs, bins, row)
    page = template("attention_view.html").render(scripts=_scripts(), view=_draw(view, binned))
    rows = len(binned.labels) + ROWS_ABOVE
    return AttentionView(page, round(ROW_HEIGHT * rows) if view == "head" else MODEL_VIEW_HEIGHT)


def write_attention_page(
    model: str | Path,
    build: str | Path,
    output: str | Path,
    *,
    recording: str | None = None,
    neuron: str | None = None,
    start: float | None = None,
    bins: int = BINS,
    hide_spans: bool = False,
    seed: int = 0,
    missing_neighbours: str = "error",
) -> OneWindow:
    """Write a page with both of bertviz's views of the attention within one window.

    Args:
        model: Folder or Hub name of a masked model or a classifier.
        build: Parquet build.
        output: HTML file to make.
        recording: As for `find_window`, like neuron, start and missing_neighbours.
        bins: Most time bins of the head view; the model view has at most 16.
        hide_spans: Whether to hide spans of frames from the model, as in training.
        seed: Seed of the spans.

    Returns:
        The window.

    Raises:
        ValueError: If the model or the build cannot be used, there is no such window or number of bins, or the output
            file exists.
    """
    require_new(output, "an output file")
    if not 2 <= bins <= MOST_BINS:
        raise ValueError(f"expected 2 to {MOST_BINS} bins, got {bins}")
    network = load_quietly(NeurtModel, model, attn_implementation="eager").eval()
    window = find_window(
        build,
        load_processor(model),
        recording=recording,
        neuron=neuron,
        start=start,
        missing_neighbours=missing_neighbours,
    )
    if hide_spans:
        window = window.with_hidden_spans(seed)
    page = attention_page(network, window, bins, model_name=name_of(model))
    with file_aside(output) as aside:
        aside.write_text(page, encoding="utf-8")
    return window


def attention_page(model: NeurtPreTrainedModel, window: OneWindow, bins: int, model_name: str) -> str:
    """The HTML of a page with both views, which makes no request; arguments as for `write_attention_page`."""
    binned = {
        "head": bin_attention(model, window.inputs, bins),
        "model": bin_attention(model, window.inputs, min(bins, MODEL_VIEW_BINS)),
    }
    return template("attention_page.html").render(
        window=window,
        model_name=model_name,
        scripts=_scripts(),
        binned=binned,
        views={view: _draw(view, binned[view]) for view in VIEWS},
        trace=_trace_points(window),
        hidden=hidden_frames(window.inputs).nonzero().flatten().tolist(),
    )


def _draw(view: str, attention: BinnedAttention) -> Markup:
    """What bertviz writes, without the scripts that it would fetch."""
    layers = list(attention.weights.unsqueeze(1))  # each with a batch of one, as models return them
    drawn = VIEWS[view](layers, list(attention.labels), prettify_tokens=False, html_action="return").data
    # Nothing from files is in it: the labels are numbers and words of ours.
    return Markup(re.sub(r"<script[^>]*\bsrc=[^>]*></script>", "", drawn))


def _scripts() -> list[Markup]:
    return [Markup((ASSETS / name).read_text(encoding="utf-8")) for name in SCRIPTS]


def _trace_points(window: OneWindow) -> str:
    """The window's own trace as points of a polyline, 100 wide, time downwards with a frame as the unit."""
    trace = window.inputs["input_values"][0, : window.num_frames, 0].double().numpy()
    trace = 100 * (trace - trace.min()) / (np.ptp(trace) or 1)
    return " ".join(f"{value:.1f},{frame + 0.5}" for frame, value in enumerate(trace))
