"""A circuit breaker: after a few failures in a row nobody waits for a server that does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable

from llm_memory_plugins.errors import StoreUnavailable


class Breaker:
    """Closed: all calls pass. Open: all are refused at once, but one probe after each delay; its success closes.

    Args:
        failures: So many in a row open it.
        delay: Seconds until the first probe. Doubles with each probe that fails.
        longest: Where the doubling ends.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        *,
        failures: int = 3,
        delay: float = 0.5,
        longest: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threshold = failures
        self._first = self._delay = delay
        self._longest = longest
        self._clock = clock
        self._failures = 0
        self._until: float | None = None  # the next probe's time; None while closed

    def admit(self) -> bool:
        """Let a call pass; True when it is the probe. Its outcome is reported to `succeeded` or `failed`.

        Raises:
            StoreUnavailable: While open.
        """
        if self._until is None:
            return False
        now = self._clock()
        if now < self._until:
            raise StoreUnavailable(f"Redis failed {self._failures} times in a row; it is tried again in a moment")
        self._until = now + self._delay  # a probe whose outcome is never told, being cancelled, holds up nothing
        return True

    def succeeded(self) -> None:
        """The server answered, be it with an error."""
        self._failures, self._until, self._delay = 0, None, self._first

    def failed(self, *, probe: bool) -> None:
        """The server did not answer. Of calls from before the opening, which fail late, only the first ones count."""
        if self._until is None:
            self._failures += 1
            if self._failures >= self._threshold:
                self._until = self._clock() + self._delay
        elif probe:
            self._failures += 1
            self._delay = min(2 * self._delay, self._longest)
            self._until = self._clock() + self._delay
