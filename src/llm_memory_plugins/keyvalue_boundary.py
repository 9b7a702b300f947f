"""The door of key-value memory: keys, values and requests, checked once like everything at `boundary`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, cast

from llm_memory_plugins.boundary import check_id, fields_of, token_budget
from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.key_values import Space
from llm_memory_plugins.types import ContextRequest

MAX_KEYS = 10_000
"""Keys of one call."""

_MAX_BYTES = 2_400  # of user, namespace and key together: PostgreSQL cannot index more
_FIELDS = ("key", "value", "user_id", "namespace", "ttl_seconds")
_REQUEST_FIELDS = ("keys", "user_id", "namespace", "max_tokens", "max_total_tokens")
_UNUSED = ("session_id", "query")  # of a `ContextRequest`


class Usual:
    """What stands for the engine's own setting where None means something else."""


USUAL: Final = Usual()


@dataclass(frozen=True, slots=True)
class GivenValue:
    """What `store` was given, but for the checks of the value."""

    key: str
    value: Any
    user_id: str | None = None
    namespace: str | None = None
    ttl_seconds: float | Usual | None = USUAL


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesRequest:
    """Which values are to be shown to a model: those of these keys, or all of a namespace when none are named."""

    user_id: str | None = None
    namespace: str | None = None
    keys: tuple[str, ...] | None = None
    max_tokens: int | None = None


def user(value: object) -> str | None:
    """A user's id, or None.

    Raises:
        InvalidInput: Names `user_id`.
    """
    return None if value is None else check_id(value, "user_id", empty=True)


def namespace(value: object) -> str | None:
    """A namespace, or None.

    Raises:
        InvalidInput: Names `namespace`.
    """
    return None if value is None else check_id(value, "namespace")


def key(value: object, space: Space, field: str = "key") -> str:
    """A key that every store can index.

    Raises:
        InvalidInput: Names `field`.
    """
    checked = check_id(value, field)
    if len(checked) + len(space.user_id) + len(space.namespace) > _MAX_BYTES // 4:
        size = sum(len(part.encode()) for part in (*space, checked))
        if size > _MAX_BYTES:
            raise InvalidInput(
                field, f"takes {size:,} bytes with user and namespace; at most {_MAX_BYTES:,} are allowed"
            )
    return checked


def prefix(value: object) -> str:
    """What keys may begin with.

    Raises:
        InvalidInput: Names `prefix`.
    """
    return check_id(value, "prefix", empty=True)


def keys(values: object, space: Space) -> tuple[str, ...]:
    """Keys, each once, from a list of them.

    Raises:
        InvalidInput: Names `keys`, or the one at fault.
    """
    if not isinstance(values, list | tuple | set | frozenset):
        raise InvalidInput("keys", f"must be a list of keys, not {type(values).__name__}")
    given = cast("Sequence[object]", values)
    if len(given) > MAX_KEYS:
        raise InvalidInput("keys", f"are {len(given):,}; at most {MAX_KEYS:,} are allowed in one call")
    return tuple(dict.fromkeys(key(item, space, f"keys.{place}") for place, item in enumerate(given)))


def given_value(item: object) -> GivenValue:
    """An item of `store`: `key` and `value`, and optionally `user_id`, `namespace` and `ttl_seconds`.

    Raises:
        InvalidInput: Names the field and the fix.
    """
    fields = fields_of(item, _FIELDS, "value")
    for name in ("key", "value"):
        if name not in fields:
            raise InvalidInput(name, "is missing")
    return GivenValue(
        key=check_id(fields["key"], "key"),
        value=fields["value"],
        user_id=user(fields.get("user_id")),
        namespace=namespace(fields.get("namespace")),
        ttl_seconds=fields.get("ttl_seconds", USUAL),
    )


def expiry(ttl_seconds: float | None, now: datetime) -> datetime | None:
    """When an entry expires that is written now.

    Raises:
        InvalidInput: Names `ttl_seconds`.
    """
    if ttl_seconds is None:
        return None
    if isinstance(ttl_seconds, bool) or not isinstance(ttl_seconds, int | float) or not ttl_seconds > 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput("ttl_seconds", "must be a number of seconds above 0, or None for no end")
    try:
        return now + timedelta(seconds=ttl_seconds)
    except (OverflowError, ValueError):
        raise InvalidInput("ttl_seconds", "is too long; None means no end") from None


def version(value: object) -> int:
    """A version to compare with; 0 for None: there must be no entry.

    Raises:
        InvalidInput: Names `version`.
    """
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise InvalidInput("version", "must be the version of an entry, or None where there must be none")
    return value


def number(value: object) -> float:
    """What may be added to a number.

    Raises:
        InvalidInput: Names `by`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise InvalidInput("by", "must be a finite number")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise InvalidInput("by", "must be below 2**63")
    return value


def values_request(request: Mapping[str, Any] | str | None) -> ValuesRequest:
    """A question to key-value memory, from a mapping, a `ContextRequest`, or the user's id alone.

    Raises:
        InvalidInput: Names the field and the fix.
    """
    given = {"user_id": request} if request is None or isinstance(request, str) else request
    unused = _UNUSED if isinstance(given, ContextRequest) else ()
    fields = fields_of(given, (*_REQUEST_FIELDS, *unused), "request for values")
    named = fields.get("keys")
    return ValuesRequest(
        user_id=user(fields.get("user_id")),
        namespace=namespace(fields.get("namespace")),
        keys=None if named is None else keys(named, Space("", "")),
        max_tokens=token_budget(fields),
    )
