"""The page of attention draws what it should in a browser without a network, and does nothing else."""

import os
import re
from pathlib import Path

import pytest
import torch
from neurt import NeurtConfig, NeurtForMaskedSignalModeling, NeurtForSequenceClassification, NeurtModel, NeurtProcessor
from neurt.dataset_scripts.import_recordings import import_recordings
from neurt.explain import attention_page
from neurt.explain.attention_bins import bin_attention
from neurt.explain.attention_page import attention_view, write_attention_page
from neurt.explain.one_window import find_window
from neurt.loading import load_processor, load_quietly, shipped_model
from small_builds import recording, write

REAL = Path(os.environ.get("NEURT_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
ATTACK = "<script>alert(1)</script>"
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
OPACITIES = "(lines) => lines.map((line) => Number(line.getAttribute('stroke-opacity')))"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of an untrained masked model and an untrained classifier."""
    folder = tmp_path_factory.mktemp("models")
    config = NeurtConfig(**SIZES, max_position_embeddings=40, num_labels=2)
    torch.manual_seed(0)
    for name, cls in {"masked": NeurtForMaskedSignalModeling, "classifier": NeurtForSequenceClassification}.items():
        cls(config).save_pretrained(folder / name)
        NeurtProcessor(window_length=40).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def small_build(tmp_path_factory):
    roi_ids = tuple(f"{ATTACK}{i}" for i in range(12))
    return write(tmp_path_factory.mktemp("data") / "build", [recording(0, subject_id=ATTACK, roi_ids=roi_ids)])


@pytest.fixture
def page_of(visit, small_build, tmp_path):
    """Write the page of a window, open it and wait until both views are drawn."""

    def open_page(model, build=small_build, **options):
        write_attention_page(model, build, tmp_path / "page.html", **options)
        page = visit(tmp_path / "page.html")
        page.wait_for_selector(".model-view svg g line", state="attached")
        return page

    return open_page


def attention(model, build, bins, **window):
    network = load_quietly(NeurtModel, model, attn_implementation="eager")
    return bin_attention(network, find_window(build, load_processor(model), **window).inputs, bins)


def opacities(page, lines):
    return torch.tensor(page.locator(lines).evaluate_all(OPACITIES), dtype=torch.float64)


def drawn_heads(page):
    """What the head view draws of each head, (H, b, b)."""
    bins = page.locator(".head-view #left text").count()
    return opacities(page, ".head-view #attention line").view(-1, bins, bins)


def test_both_views_draw_a_line_for_each_weight(page_of, models, small_build):
    page = page_of(models / "masked", bins=20)
    weights = attention(models / "masked", small_build, 20).weights
    torch.testing.assert_close(drawn_heads(page), weights[0] / 2)
    coarse = attention(models / "masked", small_build, 16).weights  # bins of 3 frames, 14 of them
    assert coarse.shape == (3, 2, 14, 14)
    torch.testing.assert_close(opacities(page, ".model-view line"), coarse.flatten())
    page.locator(".model-view svg > g").nth(3).click()
    assert "Layer 1, Head 1" in page.locator(".model-view svg").text_content()
    torch.testing.assert_close(opacities(page, ".model-view .detail line"), coarse[1, 1].flatten())


def test_the_head_view_changes_with_layer_heads_and_time(page_of, models, small_build):
    page = page_of(models / "masked", bins=20)
    weights = attention(models / "masked", small_build, 20).weights
    page.locator(".head-view #layer").select_option("2")
    torch.testing.assert_close(drawn_heads(page), weights[2] / 2)
    boxes = page.locator(".head-view #vis > svg > g:last-child > rect")
    assert boxes.count() == 2
    boxes.nth(0).click()
    alone = torch.stack([torch.zeros(20, 20, dtype=torch.float64), weights[2, 1]])
    torch.testing.assert_close(drawn_heads(page), alone)
    page.locator(".head-view #left text").nth(4).hover()
    shown = page.locator(".head-view line[visibility='visible']")
    assert shown.count() == 2 * 20
    assert set(shown.evaluate_all("(lines) => lines.map((line) => line.getAttribute('left-token-index'))")) == {"4"}
    assert shown.first.evaluate("(line) => getComputedStyle(line).strokeWidth") == "4px"


def test_the_trace_runs_beside_the_bins(page_of, models, small_build):
    page = page_of(models / "masked", bins=12, start=2.0, hide_spans=True, seed=5)  # 10 bins of 4 frames
    rows = page.locator(".head-view #left .background")
    first, last = rows.first.bounding_box(), rows.last.bounding_box()
    drawing = page.locator(".trace svg").bounding_box()
    assert drawing["y"] == pytest.approx(first["y"], abs=1)
    assert drawing["y"] + drawing["height"] == pytest.approx(last["y"] + last["height"], abs=1)
    window = find_window(small_build, load_processor(models / "masked"), start=2.0)
    trace = window.inputs["input_values"][0, :, 0]
    points = page.locator(".trace polyline").get_attribute("points").split()
    assert len(points) == 40 and points[int(trace.argmax())] == f"100.0,{int(trace.argmax()) + 0.5}"
    hidden = window.with_hidden_spans(5).inputs["bool_masked_pos"][0, :, 0]
    grey = [int(rect.get_attribute("y")) for rect in page.locator(".trace rect").all()]
    assert grey == hidden.nonzero().flatten().tolist()
    marked = [" hidden" in text for text in page.locator(".head-view #left text").all_text_contents()]
    assert marked == (hidden.view(10, 4).sum(1) >= 2).tolist() and any(marked)
    assert f"{len(grey)} of them hidden" in page.locator("table").inner_text()


def test_names_from_files_are_text(page_of, models):
    page = page_of(models / "masked", neuron=f"{ATTACK}3")
    facts = page.locator("table").inner_text()
    assert f"r0, subject {ATTACK}" in facts and f"{ATTACK}3" in facts
    assert ATTACK in page.title()
    assert "alert" not in "".join(page.locator("script").all_text_contents())


def test_the_page_says_what_it_shows_and_what_it_does_not(models, small_build, tmp_path):
    write_attention_page(models / "classifier", small_build, tmp_path / "page.html", start=12.8)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>\n") and "default-src 'none'" in text
    assert "40 frames from 12.8 s to 20.8 s, at 5 Hz</td>" in text and "<td>classifier</td>" in text
    assert "by itself explains nothing" in text and "neurt explain report" in text
    assert "Simulated data" not in text and "hidden from the model" not in text


def test_simulated_data_are_called_so(models, build, tmp_path):
    write_attention_page(models / "masked", build, tmp_path / "page.html")
    assert "Simulated data." in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_long_window_of_the_shipped_size_fits_and_opens(page_of, tmp_path):
    config = NeurtConfig(max_position_embeddings=512)
    NeurtForMaskedSignalModeling(config).save_pretrained(tmp_path / "model")
    NeurtProcessor(window_length=512).save_pretrained(tmp_path / "model")
    build = write(tmp_path / "build", [recording(0, frames=600)])
    page = page_of(tmp_path / "model", build)
    page.locator(".head-view #layer").select_option("3")
    assert page.locator(".head-view #attention line").count() == 4 * 64**2
    write_attention_page(tmp_path / "model", build, tmp_path / "largest.html", bins=128)
    assert (tmp_path / "page.html").stat().st_size < 2e6 < (tmp_path / "largest.html").stat().st_size < 5e6


def test_the_shipped_model_on_simulated_data(page_of, build):
    page = page_of(shipped_model(), build, hide_spans=True)
    weights = attention(shipped_model(), build, 64).weights  # nothing hidden, so another attention
    assert drawn_heads(page).shape == weights.shape[1:] == (4, 58, 58)
    assert not torch.allclose(drawn_heads(page), weights[0] / 4)
    assert "Simulated data." in page.locator("body").inner_text()


@pytest.mark.skipif(not (REAL / "suite2p_plane0").exists(), reason="no real recordings")
def test_the_shipped_model_on_a_real_recording(page_of, tmp_path):
    import_recordings(REAL / "suite2p_plane0", tmp_path / "build", sampling_rate=30.0)
    page = page_of(shipped_model(), tmp_path / "build", start=40.0)
    torch.testing.assert_close(
        drawn_heads(page), attention(shipped_model(), tmp_path / "build", 64, start=40.0).weights[0] / 4
    )


def test_the_command_writes_the_page_and_says_of_what(neurt, models, small_build, tmp_path):
    words = ["explain", "attention", models / "masked", small_build, "--output", tmp_path / "page.html"]
    chosen = ["--recording", "r0", "--neuron", f"{ATTACK}2", "--start", 3, "--bins", 10, "--hide", "--seed", 4]
    code, out, _ = neurt(*words, *chosen)
    assert code == 0
    assert out == f"attention within neuron {ATTACK}2 of r0, 3.0 to 11.0 s; saved to {tmp_path / 'page.html'}\n"
    options = {"neuron": f"{ATTACK}2", "start": 3, "bins": 10, "hide_spans": True, "seed": 4}
    write_attention_page(models / "masked", small_build, tmp_path / "expected.html", **options)
    found, expected = (without_ids((tmp_path / f"{name}.html").read_text()) for name in ("page", "expected"))
    assert found == expected


def test_the_shipped_weights_have_a_name(neurt, small_build, tmp_path):
    code, _, _ = neurt("explain", "attention", "shipped", small_build, "--output", tmp_path / "page.html")
    assert code == 0 and f"<td>{shipped_model().name}</td>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def without_ids(html):
    """bertviz gives each view a random name."""
    return re.sub(r"bertviz-\w+", "", html)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recording", "r7"], "expected a recording among r0, got 'r7'"),
        (["--neuron", "n7"], "expected a neuron of r0 that gives windows, among "),
        (["--start", "1000"], "expected a start from 0 to 16.8 s, "),
        (["--bins", "1"], "expected 2 to 128 bins, got 1"),
        (["--bins", "129"], "expected 2 to 128 bins, got 129"),
        (["--missing-neighbours", "guess"], 'expected missing_neighbours "error" or "mask", got \'guess\''),
        (["--hide", "--seed", "-1"], "expected a seed of at least 0, got -1"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(neurt, models, small_build, tmp_path, words, message):
    output = tmp_path / "page.html"
    code, out, err = neurt("explain", "attention", models / "masked", small_build, "--output", output, *words)
    assert (code, out) == (2, "") and err.startswith(f"neurt: {message}") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_page_that_exists_is_left_alone(neurt, models, small_build, tmp_path):
    (tmp_path / "page.html").write_text("mine")
    code, _, err = neurt("explain", "attention", models / "masked", small_build, "--output", tmp_path / "page.html")
    assert code == 2 and "expected an output file that does not exist yet" in err
    assert (tmp_path / "page.html").read_text() == "mine"


def test_a_notebook_draws_the_views_without_a_network(visit, models, small_build, tmp_path):
    model = load_quietly(NeurtForMaskedSignalModeling, models / "masked", attn_implementation="eager")
    inputs = find_window(small_build, load_processor(models / "masked")).inputs
    cells = [attention_view(model, inputs, view=view, bins=10)._repr_html_() for view in ("head", "model", "head")]
    (tmp_path / "notebook.html").write_text("<!DOCTYPE html>" + "<hr>".join(cells), encoding="utf-8")
    page = visit(tmp_path / "notebook.html")
    frames = [page.frame_locator("iframe").nth(place) for place in range(3)]
    for frame in frames:
        frame.locator("svg line").first.wait_for(state="attached")
    weights = bin_attention(model, inputs, 10).weights
    assert weights.shape == (3, 2, 10, 10)
    for frame in (frames[0], frames[2]):
        torch.testing.assert_close(opacities(frame, "#attention line").view(2, 10, 10), weights[0] / 2)
        assert frame.locator("body").evaluate("(body) => body.scrollHeight <= innerHeight")
    torch.testing.assert_close(opacities(frames[1], "line"), weights.flatten())


def test_a_view_that_bertviz_has_not_is_refused(models, small_build):
    with pytest.raises(ValueError, match="expected a view among head, model, got 'neuron'"):
        attention_view(None, {}, view="neuron")


def test_the_scripts_inside_cannot_end_their_elements_and_come_with_licences():
    for name in attention_page.SCRIPTS:
        text = (attention_page.ASSETS / name).read_text(encoding="utf-8")
        assert "</script" not in text.lower() and "<!--" not in text
        licence = (attention_page.ASSETS / f"{name.split('.')[0]}.LICENSE").read_text(encoding="utf-8")
        assert licence.startswith("Copyright")


def test_the_browser_tells_of_requests_errors_and_dialogs(visit, tmp_path):
    (tmp_path / "bad.html").write_text(
        "<img src='https://example.org/a.png'><script>alert(1); console.error('oh'); missing();</script>"
    )
    visit(tmp_path / "bad.html").wait_for_timeout(200)
    told = " ".join(visit.complaints)
    assert all(word in told for word in ("request: https://example.org/a.png", "dialog: 1", "error: oh", "missing"))
    visit.complaints.clear()
