"""One HTML page that opens from a file, without a network: text, tables and pictures, in sections.

Text is escaped, pictures are inside the page, and a policy in its head forbids the browser any request.
"""

import base64
import functools
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Table:
    """A table of text; columns after the first are set to the right if they are numbers.

    Args:
        caption: What the rows are.
        header: One for each column.
        rows: As many cells each.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A picture and the words for those who do not see it.

    Args:
        png: The file's bytes.
        title: What it shows; also its text for those who do not see it.
        caption: How to read it.
    """

    png: bytes
    title: str
    caption: str

    @classmethod
    def drawn(cls, figure: Figure, title: str, caption: str) -> "Picture":
        """A figure as a picture."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
        return cls(buffer.getvalue(), title, caption)

    @property
    def source(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Args:
        title: Its heading; each section has another.
        text: Paragraphs.
        warnings: Paragraphs to read first.
        tables: Below the text.
        pictures: Below the tables.
        code: A command, below all.
    """

    title: str
    text: Sequence[str] = ()
    warnings: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = field(default=(), repr=False)
    code: str = ""


def render(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """Return the page.

    Args:
        title: Of the page and its tab.
        lead: What to know first, in paragraphs.
        sections: In their order; the page begins with links to them.
    """
    return template("page.html").render(title=title, lead=lead, sections=sections, before=0)


def render_sections(sections: Sequence[Section], *, before: int = 0) -> str:
    """Return sections alone, to stand in another page below as many as are there before them."""
    return template("sections.html").render(sections=sections, before=before)


@functools.cache
def template(name: str) -> jinja2.Template:
    """One of the templates of pages; what is put into it is escaped."""
    loader = jinja2.FileSystemLoader(ASSETS)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["number"] = _is_number
    return environment.get_template(name)


def _is_number(cell: str) -> bool:
    """Whether a cell starts with a number: 0.5 [0.1, 0.9], <0.001 and 3 of 3, but not 5xFAD."""
    return re.match(r"[+\-−<>≤≥~ ]*[\d.]+(e[+-]?\d+)?(?!\w)", cell) is not None
