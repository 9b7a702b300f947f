"""What key-value memory needs from the outside: Protocols as in `ports`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from llm_memory_plugins.key_values import Newest, NewValue, Removed, SealedValue, Space


class KeyValue(Protocol):
    """The durable values of keys. Every verb is one atomic operation on any number of keys.

    An entry that has expired at `now` is not there for anybody.
    """

    async def read(self, space: Space, which: Sequence[str] | Newest, *, now: datetime) -> tuple[SealedValue, ...]:
        """The entries of these keys, as far as they are there, in any order; or those written last, newest first."""
        ...

    async def write(self, space: Space, values: Sequence[NewValue], *, now: datetime) -> tuple[SealedValue, ...]:
        """Write all of them or none; returns the entries in the given order. No key is there twice.

        Raises:
            Conflict: When an entry is not in the version that was expected of it: names the first such key.
        """
        ...

    async def increment(
        self, space: Space, key: str, by: float, *, now: datetime, expires_at: datetime | None = None
    ) -> SealedValue:
        """Add to the number an entry holds as plain JSON, as `values.add` does; where there is none it begins at 0.

        Args:
            space, key: Which.
            by: What is added.
            now: The time.
            expires_at: Of an entry that begins. One that is there keeps its own.

        Raises:
            InvalidInput: When the entry holds something else, or the sum is no finite number. It stays as it is.
        """
        ...

    async def remove(
        self, user_id: str, namespace: str | None = None, keys: Sequence[str] | None = None, *, now: datetime
    ) -> Removed:
        """Remove keys of a namespace; all of it when none are named; all of the user's when not even that is."""
        ...

    async def keys(
        self, space: Space, *, prefix: str = "", after: str | None = None, limit: int = 1000, now: datetime
    ) -> tuple[str, ...]:
        """Up to `limit` keys that begin with `prefix`, by code points, from behind `after` on."""
        ...

    async def prune(self, now: datetime, *, user_id: str | None = None, limit: int = 10_000) -> int:
        """Remove up to `limit` expired entries, of a user or of everybody who may be seen; returns how many."""
        ...


class UserCopies(Protocol):
    """Copies that are erased with their user."""

    async def forget(self, user_id: str) -> int:
        """Remove all copies of a user's, and refuse those on their way; returns 1 when there were any."""
        ...


class HotValues(UserCopies, Protocol):
    """Copies of values that may vanish at any time. All verbs raise `StoreUnavailable`, and soon, when out of reach."""

    async def read(self, space: Space, keys: Sequence[str]) -> Mapping[str, SealedValue]:
        """The copies there are, expired ones too."""
        ...

    async def put(self, space: Space, values: Sequence[SealedValue], *, written: bool, now: datetime) -> None:
        """Put copies in place, each unless what is there is of a later version.

        Those of values that were not just `written` but read are not put where one was dropped a moment ago.
        """
        ...

    async def drop(self, space: Space, versions: Mapping[str, int]) -> None:
        """Forget copies up to a version (0: any), and for a moment refuse late ones of it, and all that were read."""
        ...

    def keys(self, space: Space) -> AsyncIterator[Sequence[str]]:
        """The keys of all copies there are, page by page."""
        ...
