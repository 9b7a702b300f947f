"""The door of vector memory: records, and questions to them, checked once like everything at `boundary`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast
from uuid import NAMESPACE_URL, uuid5

from uuid_utils import uuid7

from llm_memory_plugins import filters
from llm_memory_plugins.boundary import (
    ROLES,
    check_id,
    each,
    fields_of,
    moment,
    optional_id,
    plain_text,
    token_budget,
)
from llm_memory_plugins.codec import dumps, loads
from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.records import Record, Where
from llm_memory_plugins.types import EMPTY, Readable, Role

MAX_QUERY = 100_000
MAX_RESULTS = 1_000
MAX_SOURCE = 2_000
"""Characters of a source: longer than any URL in use."""

_CHANGING = ("content", "text", "metadata", "session_id", "source", "role", "name", "created_at", "importance")
_RECORD_FIELDS = ("id", "user_id", *_CHANGING)
# What a record has from stores and searches; ignored when it comes back in.
_FOUND_FIELDS = ("revision", "score", "similarity", "why", "passage", "text", "speaker")
_SCOPE_FIELDS = ("session_id", "source", "since", "until", "filter")
_REQUEST_FIELDS = (
    *("query", "user_id", *_SCOPE_FIELDS),
    *("max_results", "similarity_threshold", "max_tokens", "max_total_tokens"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorRequest(Readable):
    """One question to vector memory. What is None is left to the engine.

    Attributes:
        where: Which records are asked.
        max_results: Records at most.
        similarity_threshold: A cosine below it counts as none.
        max_tokens: Budget of the rendered context.
    """

    query: str
    user_id: str | None = None
    session_id: str | None = None
    source: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    filter: filters.Filter | None = None
    max_results: int | None = None
    similarity_threshold: float | None = None
    max_tokens: int | None = None

    @property
    def where(self) -> Where:
        """Which records are asked."""
        return Where(**{name: self[name] for name in _SCOPE_FIELDS})


def records(
    items: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]], *, now: datetime, max_bytes: int
) -> list[tuple[str | None, Record, bool]]:
    """Records from a text, a mapping, a `Record`, or a list of these, all checked before any is used.

    Args:
        items: Each with `content` (or `text`), and optionally `id`, `user_id`, `session_id`, `source`, `role`,
            `name`, `created_at`, `metadata`, `importance`. What stores and searches add is ignored.
        now: The time of a record that brings none.
        max_bytes: Size limit of content and metadata together, in bytes of UTF-8.

    Returns:
        Of each: the user it names, or None; the record; and whether it may be known already: its id was given, or
        made from its source, session and content. A record without id and source gets an id of its own.

    Raises:
        InvalidInput: Names the field and the fix; with several items also its position, like `3.content`.
    """
    seen: Counter[tuple[str, str]] = Counter()
    if isinstance(items, str | Mapping):
        return [_named(items, seen, now, max_bytes)]
    if isinstance(items, bytes) or not isinstance(items, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput("record", f"must be a text, a mapping or a list of these, not {type(items).__name__}")
    return each(items, lambda item: _named(item, seen, now, max_bytes))


def _named(
    item: object, seen: Counter[tuple[str, str]], now: datetime, max_bytes: int
) -> tuple[str | None, Record, bool]:
    given = _given(item)
    user, identity = given.get("user_id"), given.get("id")
    user = None if user is None else check_id(user, "user_id", empty=True)
    if identity is not None:
        return user, _record(given, check_id(identity, "id"), now, max_bytes), True
    made = _record(given, "", now, max_bytes)
    if made.source is None:
        return user, replace(made, id=str(uuid7())), False
    # A file that is read again gives the same ids, also where it says the same thing twice.
    told = json.dumps((made.source, made.session_id, made.content))
    seen[user or "", told] += 1
    return user, replace(made, id=str(uuid5(NAMESPACE_URL, f"{seen[user or '', told]}:{told}"))), True


def _given(item: object) -> Mapping[str, Any]:
    """The fields of a record that were set by the caller."""
    if isinstance(item, str):
        return {"content": item}
    stored = isinstance(item, Mapping) and "revision" in item
    known = (*_RECORD_FIELDS, *_FOUND_FIELDS) if stored else _RECORD_FIELDS
    fields = fields_of(cast("object", item), known, "record")
    given = {name: value for name, value in fields.items() if not (stored and name in _FOUND_FIELDS)}
    # Until it is stored a `Record` has no user.
    return {**given, "user_id": item.user_id or None} if isinstance(item, Record) else given


def _record(given: Mapping[str, Any], identity: str, now: datetime, max_bytes: int) -> Record:
    content = _content(given)
    role = given.get("role")
    if role is not None and role not in ROLES:
        raise InvalidInput("role", f"is {role!r:.40}; it must be one of {', '.join(ROLES)}")
    created_at = given.get("created_at")
    metadata = _metadata(given.get("metadata"))
    size = len(content.encode()) + len(metadata.encode())
    if size > max_bytes:
        raise InvalidInput("content", f"and metadata take {size:,} bytes; max_message_bytes is {max_bytes:,}")
    return Record(
        id=identity,
        content=content,
        created_at=moment(now if created_at is None else created_at, "created_at"),
        metadata=loads(metadata) if metadata else EMPTY,
        session_id=_session(given),
        source=_source(given),
        role=cast("Role | None", role),
        name=optional_id(given.get("name"), "name"),
        importance=_between(given.get("importance"), "importance", 0.0, 1.0) or 0.0,
    )


def _content(given: Mapping[str, Any]) -> str:
    content, text = given.get("content"), given.get("text")
    if content is not None and text is not None:
        raise InvalidInput("text", "is another name of content; give one of them")
    field = "content" if text is None else "text"
    if given.get(field) is None:
        raise InvalidInput(field, "is missing; say what is to be remembered")
    found = plain_text(given[field], field)
    if not found or found.isspace():
        raise InvalidInput(field, "is blank; say what is to be remembered")
    return found


def _metadata(value: object) -> str:
    """As tagged JSON, which proves that it can be stored, and later changes by the caller miss it."""
    if value is None:
        return ""
    if not isinstance(value, Mapping):
        raise InvalidInput("metadata", f"must be a mapping, not {type(value).__name__}")
    return dumps({**value}, field="metadata") if value else ""


def _session(given: Mapping[str, Any]) -> str | None:
    session_id = given.get("session_id")
    return None if session_id is None else check_id(session_id, "session_id")


def _source(given: Mapping[str, Any]) -> str | None:
    if (source := given.get("source")) is None:
        return None
    if not plain_text(source, "source"):
        raise InvalidInput("source", "must not be empty")
    if len(source) > MAX_SOURCE:
        raise InvalidInput("source", f"has {len(source):,} characters; at most {MAX_SOURCE:,} are allowed")
    return source


def _between(value: object, field: str, least: float, most: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidInput(field, f"must be a number from {least:g} to {most:g}")
    return float(value)


def changed(held: Record, changes: Mapping[str, Any], *, max_bytes: int) -> Record:
    """A record with some of its fields changed; it keeps its revision, so that it replaces no other.

    Args:
        held: As it is stored.
        changes: Any of `content` (or `text`), `metadata` (all of it), `session_id`, `source`, `role`, `name`,
            `created_at`, `importance`. None takes an optional one away.
        max_bytes: As for `records`.

    Raises:
        InvalidInput: Names the field and the fix.
    """
    given = dict(fields_of(changes, _CHANGING, "change"))
    if "text" in given:
        given = {"content": None, **given}
    made = _record({**_given(held), **given}, held.id, held.created_at, max_bytes)
    return replace(made, user_id=held.user_id, revision=held.revision)


def vector_request(request: str | Mapping[str, Any], **more: Any) -> VectorRequest:
    """A question to vector memory, from its text or from a mapping with the fields of `VectorRequest`.

    Args:
        request: The question; `max_total_tokens` is another name of `max_tokens`.
        more: Fields besides.

    Raises:
        InvalidInput: Names the field and the fix.
    """
    if isinstance(request, str):
        request = {"query": request}
    given = fields_of({**fields_of(request, _REQUEST_FIELDS, "search"), **more}, _REQUEST_FIELDS, "search")
    query = plain_text(given.get("query"), "query")
    if not query or query.isspace():
        raise InvalidInput("query", "is blank; say what is looked for")
    if len(query) > MAX_QUERY:
        raise InvalidInput("query", f"has {len(query):,} characters; at most {MAX_QUERY:,} are allowed")
    most = given.get("max_results")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or not 0 < most <= MAX_RESULTS):
        raise InvalidInput("max_results", f"must be a whole number from 1 to {MAX_RESULTS:,}")
    user_id = given.get("user_id")
    return VectorRequest(
        query=query,
        user_id=None if user_id is None else check_id(user_id, "user_id", empty=True),
        max_results=most,
        similarity_threshold=_between(given.get("similarity_threshold"), "similarity_threshold", -1.0, 1.0),
        max_tokens=token_budget(given),
        **_scope(given),
    )


def where(given: Mapping[str, Any]) -> Where:
    """Which records are meant: `ids` (a list), `session_id`, `source`, `since`, `until`, `filter`.

    What is None, or an empty filter, is no condition; an empty list of ids means none of the records.

    Raises:
        InvalidInput: Names the field and the fix.
    """
    given = fields_of(given, ("ids", *_SCOPE_FIELDS), "condition")
    return Where(ids=_ids(given.get("ids")), **_scope(given))


def _scope(given: Mapping[str, Any]) -> dict[str, Any]:
    since, until, asked = given.get("since"), given.get("until"), given.get("filter")
    condition = None if asked is None else filters.parse(asked)
    return {
        "session_id": _session(given),
        "source": _source(given),
        "since": None if since is None else moment(since, "since"),
        "until": None if until is None else moment(until, "until"),
        "filter": None if condition == filters.All(()) else condition,
    }


def _ids(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple | set | frozenset):
        raise InvalidInput("ids", f"must be a list of ids, not {type(value).__name__}")
    return tuple(check_id(item, f"ids.{i}") for i, item in enumerate(cast("Sequence[object]", value)))
