"""What a row of WAL records amounts to: the log's extent and terms, and the hard state.

Pure. Recovery, the writer (for the header of its next segment) and the loop's side (to refuse a
record that does not follow) each keep one; the payloads are not kept here.
"""

from __future__ import annotations

from bisect import bisect_right

from coordsvc.storage.wal_format import CUT_MARKER, Kind


class WalState:
    """Base, last entry and the terms between them; term, vote, voter flag.

    A log that never had an entry (last_index 0) takes its base from the first one, because the
    log above may start at an entry that all replicas take for granted.
    """

    def __init__(
        self,
        *,
        base_index: int = 0,
        base_term: int = 0,
        term: int = 0,
        voted_for: str | None = None,
        voter: bool = False,
        ambiguous_cut: bool = False,
    ) -> None:
        self.base_index = base_index
        self.last_index = base_index
        self.term = term
        self.voted_for = voted_for
        self.voter = voter
        self.ambiguous_cut = ambiguous_cut
        # (first index, term) of each run of entries of one term: few, however long the log.
        self._runs: list[tuple[int, int]] = [(base_index, base_term)]

    @property
    def base_term(self) -> int:
        return self._runs[0][1]

    @property
    def last_term(self) -> int:
        return self._runs[-1][1]

    def copy(self) -> WalState:
        twin = WalState()
        twin.__dict__.update(self.__dict__)
        twin._runs = self._runs.copy()
        return twin

    def term_at(self, index: int) -> int:
        assert self.base_index <= index <= self.last_index
        return self._runs[bisect_right(self._runs, index, key=lambda run: run[0]) - 1][1]

    def append(self, index: int, term: int) -> None:
        """Raise ValueError unless the entry follows the log's last one."""
        last_term = self._runs[-1][1]
        if index != self.last_index + 1:
            if self.last_index or index < 1:
                raise ValueError(f"entry {index} does not follow entry {self.last_index}")
            self.base_index = index - 1
            self._runs = [(self.base_index, 0)]
        if term < last_term:
            raise ValueError(f"entry {index} has term {term}, the one before it {last_term}")
        if term > last_term:
            self._runs.append((index, term))
        self.last_index = index

    def truncate(self, from_index: int) -> None:
        """Raise ValueError when nothing is there to drop, or the base would be."""
        if not self.base_index < from_index <= self.last_index:
            raise ValueError(
                f"cannot truncate from {from_index}: the log holds entries"
                f" {self.base_index + 1} to {self.last_index}"
            )
        while self._runs[-1][0] >= from_index:
            self._runs.pop()
        self.last_index = from_index - 1

    def set_hard_state(self, term: int, voted_for: str | None) -> None:
        """Raise ValueError when the term falls, or a vote is taken back within its term."""
        if term < self.term:
            raise ValueError(f"the term cannot fall from {self.term} to {term}")
        if term == self.term and self.voted_for is not None and voted_for != self.voted_for:
            raise ValueError(f"voted for {self.voted_for} in term {term}, not for {voted_for}")
        self.term, self.voted_for = term, voted_for

    def set_voter(self, voter: bool) -> None:
        self.voter = voter
        self.ambiguous_cut = False

    def apply(self, kind: int, index: int, term: int, payload: bytes) -> None:
        """Take a record in; raise ValueError when it cannot come here."""
        if kind == Kind.ENTRY:
            self.append(index, term)
        elif kind == Kind.TRUNCATE:
            self.truncate(index)
        elif kind == Kind.HARD_STATE:
            self.set_hard_state(term, payload.decode() if index else None)
        elif kind == Kind.VOTER:
            self.set_voter(bool(index))
        elif kind == Kind.MARKER:
            self.ambiguous_cut = self.ambiguous_cut or index == CUT_MARKER[1]
        elif kind != Kind.SEGMENT:
            raise ValueError(f"record of kind {kind}, which this version does not know")
