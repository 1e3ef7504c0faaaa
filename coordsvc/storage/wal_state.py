"""What a row of WAL records amounts to: the log's extent and terms, and the hard state.

Pure. Recovery, the writer (for the header of its next segment) and the loop's side (to refuse a
record that does not follow) each keep one; the payloads are not kept here.
"""

from __future__ import annotations

from bisect import bisect_right

from coordsvc.storage.wal_format import CUT_MARKER, DROPPED, KEPT, Kind


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
        self.installed: tuple[int, int] | None = None
        """(index, term) of the last snapshot that took the place of entries."""
        self.has_soft_base = False
        """While a log is read whose oldest segments are gone: what came before the base is not
        known, so a record that reaches below it may be right."""
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

    def truncate(self, from_index: int, term_before: int = 0) -> None:
        """Raise ValueError when nothing is there to drop, or the base would be. `term_before`: of
        the entry before, which a soft base does not know."""
        if self.has_soft_base and 0 < from_index <= self.base_index:
            self._rebase(from_index - 1, term_before)
            return
        if not self.base_index < from_index <= self.last_index:
            raise ValueError(
                f"cannot truncate from {from_index}: the log holds entries"
                f" {self.base_index + 1} to {self.last_index}"
            )
        while self._runs[-1][0] >= from_index:
            self._runs.pop()
        self.last_index = from_index - 1

    def has(self, index: int, term: int) -> bool:
        """Whether the log holds this entry, or begins after it."""
        return self.base_index <= index <= self.last_index and self.term_at(index) == term

    def install(self, index: int, term: int, *, keeps_rest: bool) -> None:
        """Put the base at a snapshot's last entry. Raise ValueError when the base is beyond it, or
        the entries after it cannot stay."""
        self.installed = (index, term)
        if self.has_soft_base and index < self.base_index:
            if not keeps_rest:
                self._rebase(index, term)
            return
        if index < self.base_index or keeps_rest != self.has(index, term):
            raise ValueError(
                f"a snapshot at entry {index} of term {term} does not fit a log of the entries"
                f" {self.base_index + 1} to {self.last_index}"
            )
        self.has_soft_base = False
        if not keeps_rest:
            self._rebase(index, term)
            return
        later = [run for run in self._runs if run[0] > index]
        self.base_index = index
        self._runs = [(index, term), *later]

    def _rebase(self, index: int, term: int) -> None:
        self.base_index = self.last_index = index
        self._runs = [(index, term)]

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
            self.truncate(index, term)
        elif kind == Kind.INSTALLED:
            if payload not in (KEPT, DROPPED):
                raise ValueError(f"a snapshot record with the payload {payload!r}")
            self.install(index, term, keeps_rest=payload == KEPT)
        elif kind == Kind.HARD_STATE:
            self.set_hard_state(term, payload.decode() if index else None)
        elif kind == Kind.VOTER:
            self.set_voter(bool(index))
        elif kind == Kind.MARKER:
            self.ambiguous_cut = self.ambiguous_cut or index == CUT_MARKER[1]
        elif kind != Kind.SEGMENT:
            raise ValueError(f"record of kind {kind}, which this version does not know")
