"""Things are chosen evenly, the ends among them."""

from neurt.sampling import evenly_spaced


def test_indices_are_spread_from_the_first_to_the_last():
    assert evenly_spaced(9, 3).tolist() == [0, 4, 8]
    assert evenly_spaced(10, 4).tolist() == [0, 3, 6, 9]


def test_of_few_things_all_are_taken_once():
    assert evenly_spaced(4, 100).tolist() == [0, 1, 2, 3]
    assert evenly_spaced(1, 5).tolist() == [0]
    assert evenly_spaced(0, 5).tolist() == []
