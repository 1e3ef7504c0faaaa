"""The names of children: always sorted, whatever came and went since the list was made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsvc.core import children
from coordsvc.core.children import Children


@pytest.mark.parametrize("shifts_max", [0, 3, 16_384])
def test_against_a_set(shifts_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the list is too long to be kept in step."""
    monkeypatch.setattr(children, "_SHIFTS_MAX", shifts_max)

    @given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans())))
    def run(steps: list[tuple[str, bool]]) -> None:
        names, model = Children(), set[str]()
        for name, is_listed in steps:
            if name in model:
                model.remove(name)
                names.remove(name)
            else:
                model.add(name)
                names.add(name)
            assert len(names) == len(model)
            assert (name in names) == (name in model)
            if is_listed:
                assert names.sorted() == sorted(model)
        assert names.sorted() == sorted(model)

    run()


def test_list_is_kept_not_made_again() -> None:
    names = Children()
    for name in "bdf":
        names.add(name)
    listed = names.sorted()
    names.add("c")
    names.add("g")
    names.remove("b")
    assert names.sorted() is listed == ["c", "d", "f", "g"]
