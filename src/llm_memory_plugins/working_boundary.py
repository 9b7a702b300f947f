"""The door of working memory: items, changes to them and questions, checked once like everything at `boundary`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from uuid_utils import uuid7

from llm_memory_plugins.boundary import check_id, each, fields_of, optional_id, plain_text, token_budget
from llm_memory_plugins.codec import dumps
from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.types import Readable
from llm_memory_plugins.working_items import Draft, Fields, ItemStatus

MAX_ITEMS = 1_000
"""Items of one call: a server does nothing else while it writes them."""

MAX_TTL = 315_360_000.0
"""Seconds an item may live: ten years."""

MAX_QUERY = 100_000
STATUSES = get_args(ItemStatus)

_CHANGING = ("content", "importance", "step", "parent_id", "tags", "status", "conclusion", "ttl_seconds")
_ITEM_FIELDS = ("namespace", "user_id", "key", "id", *_CHANGING)
# What an item has from a store; ignored when it comes back in.
_STORED_FIELDS = (
    *("created_at", "updated_at", "used_at", "expires_at"),
    *("uses", "children", "seq", "turn", "evicted", "is_step"),
)
_REQUEST_FIELDS = ("namespace", "user_id", "query", "max_tokens", "max_total_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingRequest(Readable):
    """One question to working memory. What is None is left to the engine."""

    namespace: str
    user_id: str | None = None
    query: str = ""
    max_tokens: int | None = None


def space(namespace: object, user_id: object = None) -> tuple[str, str | None]:
    """Names of a namespace and its user, checked.

    Raises:
        InvalidInput: Names the one at fault.
    """
    if namespace is None:
        raise InvalidInput("namespace", "is missing; say which working memory is meant")
    user = None if user_id is None else check_id(user_id, "user_id", empty=True)
    return check_id(namespace, "namespace"), user


def drafts(
    items: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, ttl_seconds: float, max_bytes: int
) -> tuple[str, str | None, list[Draft]]:
    """Items of one namespace from a mapping or a list of them, all checked before any is used.

    Args:
        items: Each with `namespace`, `content`, and optionally `user_id`, `key` (or `id`), `importance`, `step`,
            `parent_id`, `tags`, `status`, `conclusion`, `ttl_seconds`. What stores add is ignored.
        ttl_seconds: Life of an item that brings none.
        max_bytes: Size limit of content, step, tags and conclusion together, in bytes of UTF-8.

    Returns:
        The namespace, the user it names, or None, and what is to be written.

    Raises:
        InvalidInput: Names the field and the fix; with several items also its position, like `3.content`.
    """
    if isinstance(items, Mapping):
        named, draft = _draft(items, ttl_seconds, max_bytes)
        return *named, [draft]
    if isinstance(items, str | bytes) or not isinstance(items, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput("item", f"must be a mapping or a list of mappings, not {type(items).__name__}")
    if not 0 < len(items) <= MAX_ITEMS:
        raise InvalidInput("item", f"is a list of {len(items):,}; from 1 to {MAX_ITEMS:,} are stored in one call")
    built = each(items, lambda item: _draft(item, ttl_seconds, max_bytes))
    first: dict[str, int] = {}
    for place, (named, draft) in enumerate(built):
        if named != built[0][0]:
            raise InvalidInput(f"{place}.namespace", "or its user is another than in 0; store one namespace in a call")
        if (known := first.setdefault(draft.id, place)) != place:
            raise InvalidInput(f"{place}.key", f"is that of {known}, too; store the two one after the other")
    return *built[0][0], [draft for _, draft in built]


def _draft(item: object, ttl_seconds: float, max_bytes: int) -> tuple[tuple[str, str | None], Draft]:
    given = {
        key: value
        for key, value in fields_of(item, (*_ITEM_FIELDS, *_STORED_FIELDS), "working memory item").items()
        if key not in _STORED_FIELDS
    }
    named = space(given.get("namespace"), given.get("user_id"))
    if "content" not in given:
        raise InvalidInput("content", "is missing; say what is to be kept")
    defaults = {
        "importance": 0.5, "step": None, "tags": (), "status": "open", "conclusion": None, "ttl_seconds": ttl_seconds,
    }  # fmt: skip
    set_ = {key: value for key, value in given.items() if value is not None or key == "content"}
    return named, Draft(_key(given), _fields({**defaults, **set_}, max_bytes))


def _key(given: Mapping[str, Any]) -> str:
    key, identity = given.get("key"), given.get("id")
    if key is not None and identity is not None and key != identity:
        raise InvalidInput("id", "is another name of key; give one of them")
    named = "id" if key is None else "key"
    return str(uuid7()) if given.get(named) is None else check_id(given[named], named)


def change(key: object, given: Mapping[str, Any], *, max_bytes: int) -> Draft:
    """Some fields of an item anew.

    Args:
        key: Which.
        given: `content`, `importance`, `step`, `parent_id`, `tags`, `status`, `conclusion`, `ttl_seconds`. None takes
            step or conclusion away; for `content` it is a value.
        max_bytes: As for `drafts`.

    Raises:
        InvalidInput: Names the field and the fix.
    """
    return Draft(check_id(key, "key"), _fields(fields_of(given, _CHANGING, "change"), max_bytes), known=True)


def _fields(given: Mapping[str, Any], max_bytes: int) -> Fields:
    """What is named, and nothing else."""
    made = Fields()
    if "content" in given:
        made["content"] = dumps(given["content"], field="content")
    if "importance" in given:
        made["importance"] = _number(given["importance"], "importance", 0.0, 1.0)
    if "step" in given:
        made["step"] = _step(given["step"])
    if "parent_id" in given:
        made["parent_id"] = check_id(given["parent_id"], "parent_id")
    if "tags" in given:
        made["tags"] = _tags(given["tags"])
    if "status" in given:
        made["status"] = _status(given["status"])
    if "conclusion" in given:
        made["conclusion"] = _text(given["conclusion"], "conclusion")
    if "ttl_seconds" in given:
        made["ttl_seconds"] = _number(given["ttl_seconds"], "ttl_seconds", 0.001, MAX_TTL)
    told = (made.get("content", ""), str(made.get("step", "")), made.get("conclusion") or "", *made.get("tags", ()))
    if (size := sum(len(text.encode()) for text in told)) > max_bytes:
        raise InvalidInput("content", f"and what goes with it take {size:,} bytes; max_message_bytes is {max_bytes:,}")
    return made


def _number(value: object, field: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidInput(field, f"must be a number from {least:g} to {most:,g}")
    return float(value)


def _step(value: object) -> str | int | float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        _number(value, "step", -1e15, 1e15)
        return value
    return optional_id(value, "step")


def _status(value: object) -> ItemStatus:
    if value not in STATUSES:
        raise InvalidInput("status", f"is {value!r:.40}; it must be one of {', '.join(STATUSES)}")
    return cast("ItemStatus", value)


def _tags(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple | set | frozenset):
        raise InvalidInput("tags", f"must be a list of texts, not {type(value).__name__}")
    given = cast("Sequence[object]", value)
    checked = [check_id(tag, f"tags.{place}") for place, tag in enumerate(given)]
    return tuple(dict.fromkeys(sorted(checked) if isinstance(value, set | frozenset) else checked))


def _text(value: object, field: str) -> str | None:
    return None if value is None else plain_text(value, field) or None


def working_request(request: Mapping[str, Any] | str) -> WorkingRequest:
    """A question to working memory, from a mapping or from the name of a namespace alone.

    Raises:
        InvalidInput: Names the field and the fix.
    """
    given = fields_of(
        {"namespace": request} if isinstance(request, str) else request, _REQUEST_FIELDS, "context request"
    )
    namespace, user = space(given.get("namespace"), given.get("user_id"))
    query = "" if given.get("query") is None else plain_text(given["query"], "query")
    if len(query) > MAX_QUERY:
        raise InvalidInput("query", f"has {len(query):,} characters; at most {MAX_QUERY:,} are allowed")
    return WorkingRequest(namespace=namespace, user_id=user, query=query, max_tokens=token_budget(given))
