"""Markdown that says what was meant, whatever the text."""

import pytest
from neurt.markdown_text import code_block, escape_markdown, markdown_table


def test_a_table_has_a_header_a_rule_and_rows():
    rows = (cells for cells in [["1", "2"], ["3", "4"]])
    assert markdown_table({"a": 0, "b": 0}, rows) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |"
    assert markdown_table(["a"], []) == "| a |\n| --- |"


def test_a_fence_is_longer_than_those_within():
    assert code_block("a ``` b") == "````\na ``` b\n````" and code_block("a") == "```\na\n```"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("S71-M1.a", "S71-M1.a"),
        ("a_b*c", r"a_b\*c"),
        ("_a_ b__c", r"\_a\_ b\_\_c"),
        ("1. x", r"1\. x"),
        ("- x", r"\- x"),
        ("www.x.org", r"www\.x.org"),
        ("&lt;", r"\&lt\;"),
        ("a\r\n\tb\u200b", "a b"),
        ("x" * 100, "x" * 59 + "…"),
    ],
)
def test_markdown_is_escaped(text, escaped):
    assert escape_markdown(text) == escaped
