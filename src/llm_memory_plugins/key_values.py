"""The values of key-value memory: what callers get, and what stores are given and hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from llm_memory_plugins.errors import Conflict, InvalidInput
from llm_memory_plugins.types import Readable


class Space(NamedTuple):
    """Where keys are unique: a namespace of a user's. The empty user is one, too."""

    user_id: str
    namespace: str


class Newest(NamedTuple):
    """Which entries of a space are wanted: those written last, one at least while there are any.

    Attributes:
        limit: Entries at most.
        size: Characters of their bodies, all together, at most.
    """

    limit: int = 1000
    size: int = 1_000_000


@dataclass(frozen=True, slots=True)
class NewValue:
    """A value to be written.

    Attributes:
        body: The value as it is kept: text, whatever it was.
        encoding: How the value is got from `body`, see `sealing`; `json` for plain JSON.
        expires_at: From then on it is gone.
        expected: Write only over this version; 0: only when there is none. None: in any case.
    """

    key: str
    body: str
    encoding: str = "json"
    expires_at: datetime | None = None
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class SealedValue:
    """An entry as a store holds it. Of a key, a later version has a higher number, whatever was removed between."""

    key: str
    body: str
    encoding: str
    version: int
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None

    def is_there(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return self.expires_at is None or self.expires_at > now


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal did: how many entries went, and, where keys were named, the version of each."""

    count: int
    versions: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredValue(Readable):
    """An entry of key-value memory.

    Attributes:
        version: Another one after every write, higher than all before; what `compare_and_set` asks for.
        created_at: When the key came to be, however often it was written since.
        expires_at: From then on it is gone; None: never.
    """

    key: str
    value: Any
    version: int
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    user_id: str = ""
    namespace: str = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport(Readable):
    """What comparing the database with its copy has found; all of it was repaired.

    Attributes:
        checked: Keys that were compared.
        missing: Entries without a copy: they have one now.
        stale: Copies that were not the entry as it is.
        deleted: Copies of entries that are gone, or have expired.
        differing: The keys of the first hundred differences.
        complete: False when there was more than was to be compared.
    """

    checked: int = 0
    missing: int = 0
    stale: int = 0
    deleted: int = 0
    differing: tuple[str, ...] = ()
    complete: bool = True

    @property
    def differences(self) -> int:
        """All of them."""
        return self.missing + self.stale + self.deleted


def conflict(key: str) -> Conflict:
    """What a write raises of which an entry is not in the version that was expected."""
    return Conflict(f"key {key!r} is not in the version that was expected; nothing was written")


def no_number(key: str) -> InvalidInput:
    """What adding to an entry raises that holds something else, or cannot hold the sum."""
    return InvalidInput(key, "holds no number that this can be added to; it stays as it is")
