"""The names of children: always in order, whatever came and went."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsvc.core import children
from coordsvc.core.children import Children


@pytest.mark.parametrize("block_names_max", [1, 2, 3, 1024])
def test_against_a_set(block_names_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However they are divided."""
    monkeypatch.setattr(children, "_BLOCK_NAMES_MAX", block_names_max)

    @given(st.lists(st.sampled_from("abcdefghijkl"), max_size=60), st.sampled_from(" acfhlz"))
    def run(steps: list[str], start: str) -> None:
        names, model = Children(), set[str]()
        for name in steps:
            if name in model:
                model.remove(name)
                names.remove(name)
            else:
                model.add(name)
                names.add(name)
            assert len(names) == len(model)
            for each in "abcdefghijkl ":
                assert (each in names) == (each in model)
            assert names.sorted() == sorted(model)
            assert list(names.after(start)) == sorted(each for each in model if each > start)

    run()


def test_names_are_in_the_order_of_their_code_points() -> None:
    """Beyond the basic plane too, where UTF-16 orders otherwise."""
    names = Children()
    for name in ("\U00010000", "\uffff", "b", "B", "é", "a"):
        names.add(name)
    assert names.sorted() == ["B", "a", "b", "é", "\uffff", "\U00010000"]


def test_a_list_that_grew_and_shrank_keeps_no_empty_parts() -> None:
    names = Children()
    for number in range(5_000):
        names.add(f"{number:04}")
    assert len(names._blocks) > 4 and max(map(len, names._blocks)) <= 1024
    for number in range(5_000):
        names.remove(f"{number:04}")
    assert len(names) == 0 and names._blocks == [] and names._lasts == []
