"""What messages say is short and exact."""

import pytest
from neurt.dataset_scripts.wording import byte_size, count, repeated, some, tallied, value_range


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], ""),
        (["a"], "a"),
        (list("abcdefgh"), "a, b, c, d, e, f, g, h"),
        (list("abcdefghij"), "a, b, c, d, e, f, g, h and 2 more"),
    ],
)
def test_long_lists_are_cut_short_and_counted(names, words):
    assert some(names) == words


def test_repeated_names_are_named_once_each():
    assert repeated(["b", "a", "b", "c", "a", "b"]) == ["a", "b"] and repeated(["a", "b"]) == []


def test_one_thing_is_singular():
    assert [count(n, "recording") for n in (0, 1, 2)] == ["0 recordings", "1 recording", "2 recordings"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([5.0], "5"),
        ([5, 5], "5"),
        ([6.25, 6.2500001], "6.25"),
        ([7.92345, 4.5], "4.5 to 7.923"),
        ([12345, 100000], "12345 to 100000"),
    ],
)
def test_ranges_are_one_number_where_all_look_the_same(values, words):
    assert value_range(iter(values)) == words


def test_notes_are_said_once_with_how_many_have_them():
    assert tallied(["b", "a", "b"], 3) == ["b (2 of 3 recordings)", "a (1 of 3 recordings)"]


def test_sizes_have_one_decimal_beyond_bytes():
    sizes = [0, 999, 1000, 12_345_678, 5_000_000_000_000_000]
    assert [byte_size(size) for size in sizes] == ["0 bytes", "999 bytes", "1.0 kB", "12.3 MB", "5000.0 TB"]
