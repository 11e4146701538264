"""The notebook runs as it stands there, gives the outputs that it shows, and tells nothing of where it was made."""

import re
from pathlib import Path

import nbformat
import pytest
from notebook_runs import execute

NOTEBOOK = Path(__file__).parents[1] / "examples" / "recording_to_explanation.ipynb"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def saved():
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs(notebook):
    """What each cell of code shows: the text of its outputs, and of which kinds they are."""
    cells = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    kinds = [[sorted(output.get("data", [output.get("name")])) for output in cell] for cell in cells]
    texts = ["".join(output.get("text", "") for output in cell) for cell in cells]
    return kinds, texts


def test_the_notebook_gives_the_outputs_that_it_shows(saved, tmp_path):
    kinds, texts = outputs(execute(NOTEBOOK, tmp_path))
    expected_kinds, expected = outputs(saved)
    assert kinds == expected_kinds
    assert [NUMBER.sub("0", text) for text in texts] == [NUMBER.sub("0", text) for text in expected]
    for text, same in zip(texts, expected, strict=True):
        numbers, others = ([float(number) for number in NUMBER.findall(each)] for each in (text, same))
        assert numbers == pytest.approx(others, rel=0.05, abs=0.05)
    assert not list(tmp_path.iterdir())


def test_it_shows_pictures_scores_attention_and_a_verdict(saved):
    kinds, texts = outputs(saved)
    assert sum("image/png" in kind for cell in kinds for kind in cell) == 4
    assert sum("text/html" in kind for cell in kinds for kind in cell) == 1
    errors = [float(error) for error in re.findall(r"error (\S+) of", "".join(texts))]
    assert len(errors) == 2 and errors[0] < errors[1]
    assert re.search(r"^(not )?faithful", texts[-1], flags=re.MULTILINE)


def test_it_is_small_and_tells_nothing_of_the_machine(saved):
    assert NOTEBOOK.stat().st_size < 500_000
    assert saved.metadata.keys() == {"kernelspec", "language_info"} and saved.metadata.kernelspec.name == "python3"
    assert all(not cell.metadata for cell in saved.cells)
    for text in [*outputs(saved)[1], *(cell.source for cell in saved.cells)]:
        assert not re.search(r"(?<![\w.])[/~]\w+/|\w:\\", text)


def test_its_attention_is_drawn_without_a_network(saved, visit, tmp_path):
    shown = [output.data for cell in saved.cells for output in cell.get("outputs", []) if "data" in output]
    page = next(data["text/html"] for data in shown if "text/html" in data)
    (tmp_path / "output.html").write_text(f"<!DOCTYPE html>{page}", encoding="utf-8")
    lines = visit(tmp_path / "output.html").frame_locator("iframe").locator("#attention line")
    lines.first.wait_for(state="attached")
    assert lines.count() == 4 * 19**2  # heads, and bins of seven frames of 128
