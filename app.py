"""A page in the browser: drop a recording and see what a model says of it.

    neurt app --model MODEL

The same page is a Space on the Hub, see docs/space.md. Gradio draws it; what it shows is made by `one_recording`, in a
process of its own for each visitor. What is dropped is removed as soon as it has been read, well or not.
"""

import html
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .bounded_process import prepare, run_bounded
from .dataset_scripts.recording import TRACE_KINDS
from .inference import is_classifier
from .loading import name_of, shipped_model
from .markdown_text import escape_markdown
from .one_recording import KIND, PIXEL, RATE, SERIES, Stated, show
from .upload_room import BoundedRoom, keep_forgetting, only_dropped, own_place
from .uploads import FORMATS, Limits

MODEL_VARIABLE = "NEURT_MODEL"
SECONDS, MEMORY = 120, 3 * 10**9  # of one visit; memory in bytes
AT_ONCE, WAITING = 2, 8  # visits that are worked on, and that wait
# Bytes of all uploads that lie there or come: what those take that are worked on and wait.
ROOM = (AT_ONCE + WAITING) * Limits().upload
# Seconds from which uploads that nobody asked about are removed: longer than the last of those that wait may have to.
FORGOTTEN = SECONDS * WAITING // AT_ONCE + 60
_UNSTATED = "as the file says"
_INTRODUCTION = f"""
# NEuRT: look at a recording

Drop a recording of calcium imaging and see what may be wrong with it, how well the model fills gaps that are hidden
from it, and, where the model is a classifier, its class and whether the explanation of that may be believed.

Zips of a suite2p folder, NWB files, and `.npz` archives of `traces` (neurons × frames) with `sampling_rate` (Hz),
`trace_kind` ({", ".join(TRACE_KINDS)}) and, where known, `centroids` (x, y) with `coordinate_unit` (um, px).
Up to {Limits().upload // 10**6} MB ({Limits().unpacked // 10**6} MB unpacked, {Limits().values // 10**6} million
values) and {SECONDS} seconds of work. What you drop is removed as soon as the page has answered, and nothing in it is
executed.

"""
_CSS = (Path(__file__).parent / "explain" / "assets" / "app.css").read_text(encoding="utf-8")


def look(
    model: str,
    upload: str | None,
    sampling_rate: float | None = None,
    um_per_pixel: float | None = None,
    trace_kind: str | None = None,
    series: str | None = None,
) -> Iterator[str]:
    """Yield what the page shows of a recording, more each time; a refusal is one sentence.

    Args:
        model: Folder or Hub name.
        upload: Path of the file, which is removed; None for the built-in example.
        sampling_rate: Frames per second (Hz), where the file does not say.
        um_per_pixel: Edge of a pixel in µm, where the file does not say.
        trace_kind: What the traces are, where the file does not say.
        series: Which series of an NWB file, where it has several.
    """
    shown, stated = "", Stated(sampling_rate or None, um_per_pixel or None, trace_kind or None, series or None)
    with tempfile.TemporaryDirectory(prefix="neurt-app-") as temporary:
        # A plane is named after the folder above it, where its zip has none.
        (folder := Path(temporary) / "recording").mkdir()
        try:
            yield _working("Reading the recording.")
            for section in run_bounded(show, upload, str(folder), model, stated, seconds=SECONDS, memory=MEMORY):
                shown += section
                yield shown + _working("More is being computed.")
            yield shown + '<p class="done" role="status">Done.</p>'
        except ValueError as error:
            yield f'{shown}<p class="refused" role="alert">Stopped here: {html.escape(str(error))}.</p>'
        finally:
            if upload is not None:
                Path(upload).unlink(missing_ok=True)


def _working(words: str) -> str:
    return f'<p class="working" role="status">{words}</p>'


def build_page(model: str) -> Any:
    """The page as Gradio's `Blocks`.

    Args:
        model: Folder or Hub name.
    """
    import gradio

    with gradio.Blocks(title="NEuRT", analytics_enabled=False) as page:
        gradio.Markdown(_INTRODUCTION + describe(model))
        with gradio.Row():
            file = gradio.File(label="Your recording", file_types=list(FORMATS), height=170, scale=3, elem_id="file")
            only_dropped(file)
            with gradio.Column(scale=2, min_width=260):
                gradio.Markdown("No recording at hand? The example is **simulated**: no animal was recorded.")
                example = gradio.Button("Show the simulated example", variant="primary")
        with gradio.Accordion("What your file does not say: fill in before you drop it", open=False), gradio.Row():
            rate = gradio.Number(label=RATE, value=None, info=f"0: {_UNSTATED}")
            pixel = gradio.Number(label=PIXEL, value=None, info=f"0: {_UNSTATED}")
            kind = gradio.Dropdown([(_UNSTATED, ""), *TRACE_KINDS], label=KIND, value="", info="dff: ΔF/F")
            series = gradio.Textbox(label=SERIES, info="If it has several: a name in its path", max_length=200)
        result = gradio.HTML(elem_id="result", js_on_load=None, container=False)

        def answer(upload: str | None = None, *stated: Any) -> Iterator[tuple[str, dict, dict]]:
            # One at a time; then the file is emptied, so that the same one can be dropped again with other facts.
            for shown in look(model, upload, *stated):
                yield shown, gradio.update(interactive=False), gradio.update(interactive=False)
            yield shown, gradio.update(interactive=True, value=None), gradio.update(interactive=True)

        options = {"outputs": [result, file, example], "concurrency_id": "visits", "concurrency_limit": AT_ONCE}
        options |= {"api_visibility": "private", "show_progress": "minimal", "show_progress_on": result}
        upload = gradio.State()
        taken = file.upload(own_place, file, upload, api_visibility="private", queue=False)
        taken.then(answer, [upload, rate, pixel, kind, series], **options)
        example.click(answer, **options)
    return page.queue(max_size=WAITING, api_open=False)


def describe(model: str) -> str:
    """Which model it is, and what it can do, in Markdown; of a folder its name alone, for all the world to see."""
    name = escape_markdown(name_of(model))
    name = "the shipped weights, pretrained on simulated recordings alone" if model == str(shipped_model()) else name
    if is_classifier(model):
        return f"Model: {name}, a classifier. Hidden gaps are filled by the shipped weights."
    return f"Model: {name}. It has no classification head: gaps are filled, and no class is told."


def serve(model: str | os.PathLike | None = None, *, host: str | None = None, port: int | None = None) -> None:
    """Start the page, and stay until it is stopped.

    Args:
        model: Folder or Hub name; by default what the environment variable NEURT_MODEL says, or the shipped weights.
        host: Address to listen at; by default this machine alone can open the page.
        port: By default the first that is free from 7860 on.

    Raises:
        ValueError: If gradio is not installed, or the model cannot be opened.
    """
    model = str(model or os.environ.get(MODEL_VARIABLE) or shipped_model())
    is_classifier(model)  # refuses what is no model before anybody waits for it
    with tempfile.TemporaryDirectory(prefix="neurt-uploads-") as uploads:
        # Before the import: Gradio reads them then.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads}
        try:
            import gradio
            from starlette.middleware import Middleware
        except ImportError as error:
            raise ValueError('expected gradio to be installed; pip install "neurt[app]"') from error
        prepare("neurt.one_recording")
        keep_forgetting(Path(uploads), FORGOTTEN)
        page = build_page(model)
        room = Middleware(BoundedRoom, folder=Path(uploads), largest=Limits().upload, room=ROOM, seconds=FORGOTTEN)
        system = ["system-ui", "sans-serif"]  # no font is fetched
        theme = gradio.themes.Default(primary_hue="blue", font=system, font_mono=["ui-monospace", "monospace"])
        # Whoever ends the process this way wants no uploads left either.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            _, address, _ = page.launch(
                quiet=True,
                prevent_thread_lock=True,
                server_name=host,
                server_port=port,
                share=False,
                ssr_mode=False,
                run_history=False,
                enable_monitoring=False,
                mcp_server=False,
                max_file_size=Limits().upload,
                app_kwargs={"middleware": [room]},
                footer_links=[],
                theme=theme,
                css=_CSS,
            )
            print(f"open {address} in a browser; Ctrl+C ends it", flush=True)
            page.block_thread()
        finally:
            page.close()


if __name__ == "__main__":
    serve()
