"""How long a session certainly lives, by this process's own clock.

The cluster counts a session's timeout from when it heard of it, which is never before the client
sent what it heard. So the session lives at least one timeout from when the last message was *sent*
that the cluster has acknowledged as a renewal: a hello by its welcome, a ping by its pong. Replies
are no such acknowledgement: any replica answers reads by itself.

Pure: it is told the time, in seconds of a clock that never runs back.
"""

from __future__ import annotations

PINGS_PER_TIMEOUT = 3
"""Two may be lost before the session is."""


SILENCE_SECONDS = 1.0
"""A replica that owes answers and says nothing for so long is asked whether it lives."""

ANSWER_SECONDS = 0.5
"""And is left if it still says nothing. A pong waits for no disk and for no other request, so a
busy replica gives it in a few milliseconds; one that stands still, or is cut off, does not."""


class Lifetime:
    """`lost_at` is when the session must be taken for lost. Before the first welcome nothing is.
    `has_others`: there are replicas to go to, so one that is silent is not waited for long."""

    def __init__(self, *, has_others: bool = False) -> None:
        self._has_others = has_others
        self._asked_at: float | None = None
        """Since when answers are owed; None: everything is answered."""
        self.timeout_s = 0.0
        self.lost_at = float("inf")
        self._last_sent_at = 0.0
        self._received_at = 0.0
        self._pings: dict[int, float] = {}
        self._last_nonce = 0

    @property
    def interval_s(self) -> float:
        return self.timeout_s / PINGS_PER_TIMEOUT

    def welcomed(self, hello_sent_at: float, now: float, timeout_ms: int) -> None:
        """A stream begins; pings of the one before it will not be answered any more."""
        self.timeout_s = timeout_ms / 1000
        self._pings.clear()
        self._asked_at = None
        self._last_sent_at, self._received_at = hello_sent_at, now
        self.lost_at = hello_sent_at + self.timeout_s

    def received(self, now: float) -> None:
        """Anything at all came from the replica."""
        self._received_at = now

    def asked(self, now: float) -> None:
        """Requests leave."""
        if self._asked_at is None:
            self._asked_at = now

    def settled(self) -> None:
        """No answer is owed any more."""
        self._asked_at = None

    @property
    def _silent_since(self) -> float | None:
        """Since when nothing has come though answers are owed; None: that does not matter."""
        if self._asked_at is None or not self._has_others:
            return None
        return max(self._asked_at, self._received_at)

    @property
    def ping_at(self) -> float:
        """When the next ping is due. Other requests do not put it off: only a pong proves that
        the leader has heard of the session."""
        at = self._last_sent_at + self.interval_s
        silent_since = self._silent_since
        if silent_since is not None and self._last_sent_at < silent_since:
            return min(at, silent_since + SILENCE_SECONDS)
        return at

    def ping(self, now: float) -> int:
        """A ping leaves; its nonce."""
        self._last_nonce += 1
        self._last_sent_at = self._pings[self._last_nonce] = now
        return self._last_nonce

    def pong(self, nonce: int) -> None:
        sent_at = self._pings.get(nonce)
        if sent_at is None:
            return
        self.lost_at = max(self.lost_at, sent_at + self.timeout_s)
        # One that was sent earlier and answered later says nothing new.
        self._pings = {each: at for each, at in self._pings.items() if at > sent_at}

    @property
    def give_up_at(self) -> float:
        """When the stream must be taken for dead, with time left to find another replica: nothing
        came for a third of the timeout after a ping was due, or that waits for half of it; or,
        while answers are owed and there are others to go to, nothing came for a moment."""
        asked_at = next(iter(self._pings.values()), self.ping_at)
        silent_at = max(asked_at, self._received_at) + self.interval_s
        at = min(silent_at, asked_at + self.timeout_s / 2)
        silent_since = self._silent_since
        if silent_since is None:
            return at
        pinged_at = self._last_sent_at if self._last_sent_at >= silent_since else self.ping_at
        answer_by = max(silent_since + SILENCE_SECONDS, pinged_at) + ANSWER_SECONDS
        return min(at, answer_by)
