"""Markdown for people: tables, blocks of code, and text of strangers that stays text.

Not `markdown.py`: run from this folder, that would hide the package of this name from those who import it.
"""

import re
import unicodedata
from collections.abc import Iterable

LONGEST_NAME = 60


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; the cells are Markdown already."""
    header = list(header)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def code_block(text: str) -> str:
    """Text in a fence that is longer than any within it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def escape_markdown(text: str) -> str:
    """Show text from files and users as it is: on one line, without being read as Markdown or HTML."""
    plain = "".join(" " if unicodedata.category(char).startswith(("C", "Z")) else char for char in str(text))
    # Between letters or digits these three mean nothing to Markdown, except that some renderers link "www.".
    harmless = r"(?<!www)(?<=[^\W_])[._-](?=[^\W_])"
    return re.sub(rf"(?!{harmless})([!-/:-@\[-`{{-~])", r"\\\1", " ".join(shortened(plain).split()))


def shortened(text: str) -> str:
    """Text of at most 60 characters."""
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
