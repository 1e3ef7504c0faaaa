"""The contiguity rules on their own, against a plain list of entries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsvc.storage.wal_state import WalState


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_terms_and_extent_agree_with_a_plain_list(steps: list[tuple[bool, int]]) -> None:
    state = WalState(base_index=10, base_term=2)
    terms = [2]
    for is_append, number in steps:
        if is_append:
            term = terms[-1] + max(0, number - 7)
            state.append(10 + len(terms), term)
            terms.append(term)
        elif 0 < number < len(terms):
            state.truncate(10 + number)
            del terms[number:]
        assert state.last_index == 10 + len(terms) - 1 and state.last_term == terms[-1]
        assert [state.term_at(10 + n) for n in range(len(terms))] == terms


def test_a_copy_goes_its_own_way() -> None:
    state = WalState(base_index=1, base_term=1)
    twin = state.copy()
    twin.append(2, 2)
    assert (state.last_index, state.last_term) == (1, 1)
    assert (twin.last_index, twin.last_term) == (2, 2)


def test_unknown_records_are_refused() -> None:
    for kind in (99, 0):
        with pytest.raises(ValueError, match="does not know"):
            WalState().apply(kind, 1, 1, b"")
