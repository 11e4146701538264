"""The page of a report: text of strangers stays text, and nothing is asked of a network."""

import re
from html.parser import HTMLParser

import pytest
from neurt.explain.page import Picture, Section, Table, render

HOSTILE = "<script>alert(1)</script>\" onload='x' & {{ 7 * 7 }}"
PNG = b"\x89PNG\r\n\x1a\n"


class Reader(HTMLParser):
    """What a browser would see: elements with their attributes, and the text between them."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def hostile():
    picture = Picture(PNG, HOSTILE, HOSTILE)
    section = Section(HOSTILE, [HOSTILE], [HOSTILE], [Table(HOSTILE, [HOSTILE], [[HOSTILE]])], [picture], HOSTILE)
    return render(HOSTILE, [HOSTILE], [section])


def test_text_of_strangers_shows_as_text_wherever_it_stands(hostile):
    read = Reader(hostile)
    assert not read.all("script")
    # Title of the tab, heading, lead, link, section, warning, text, caption, column, cell, two of the picture, code.
    assert read.text.count(HOSTILE) == 13
    assert [image["alt"] for image in read.all("img")] == [HOSTILE]
    assert not [attributes for _, attributes in read.elements if "onload" in attributes]


def test_a_page_asks_nothing_of_a_network(hostile):
    read = Reader(hostile)
    policy = [meta["content"] for meta in read.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert {image["src"].split(",")[0] for image in read.all("img")} == {"data:image/png;base64"}
    assert not re.search(r"https?://", hostile)


def test_links_lead_to_the_sections():
    read = Reader(render("t", [], [Section("first"), Section("second")]))
    places = [section["id"] for section in read.all("section")]
    assert [link["href"] for link in read.all("a")] == [f"#{place}" for place in places]
    assert len(set(places)) == 2


@pytest.mark.parametrize(
    "cell, is_number",
    [("0.5", 1), ("-0.5 [−1, 1]", 1), ("<0.001", 1), ("3 of 3", 1), ("own trace", 0), ("15xFAD", 0), ("", 0)],
)
def test_numbers_stand_to_the_right(cell, is_number):
    read = Reader(render("t", [], [Section("s", tables=[Table("c", ["a", "b"], [["row", cell]])])]))
    assert len([cell for cell in read.all("td") if cell.get("class") == "number"]) == is_number
