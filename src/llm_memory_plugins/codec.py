"""Tagged JSON: what goes into a store comes back as it was, bytes and dates included; never pickle.

A value JSON has no form for is written as an object with one key, its tag: `{"$bytes": "aGk="}`. An object of the
caller's that looks like that is itself wrapped in `$object`, so every value has exactly one form and none is
mistaken for another.
"""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.types import Message, ToolCall

MAX_DEPTH = 64
"""Deeper values are refused: some readers cannot take them apart again."""

_MAX_BITS = 13_000  # Python refuses to read or write integers of more than 4,300 digits

_ENCODERS: dict[type, tuple[str, Callable[[Any], str]]] = {
    bytes: ("$bytes", lambda v: b64encode(v).decode()),
    datetime: ("$datetime", datetime.isoformat),
    date: ("$date", date.isoformat),
    Decimal: ("$decimal", str),
    UUID: ("$uuid", str),
}
_DECODERS: dict[str, Callable[[str], Any]] = {
    "$bytes": lambda v: b64decode(v, validate=True),
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$decimal": Decimal,
    "$uuid": UUID,
}


def check_text(text: str, field: str) -> None:
    """Refuse what some backend cannot keep: NUL characters and lone surrogates.

    Raises:
        InvalidInput: Names `field`.
    """
    if "\x00" in text:
        raise InvalidInput(field, "holds a NUL character, which PostgreSQL cannot store; remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(field, "holds a lone surrogate, which is not valid Unicode; decode the text again") from None


def _encode(value: Any, field: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InvalidInput(field.split(".", maxsplit=1)[0], f"is nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, bool | int):
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise InvalidInput(field, "is a number of more than 4,000 digits, which Python does not read back")
        return value
    if isinstance(value, str):
        check_text(value, field)
        return str.__str__(value)  # of an Enum that is text, its value
    if isinstance(value, float | Decimal) and not _is_finite(value):
        raise InvalidInput(field, "is not a finite number; JSON has no NaN or Infinity")
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return _encode_mapping(cast("Mapping[Any, Any]", value), field, depth)
    if isinstance(value, tuple | set | frozenset):
        items = [_encode(item, f"{field}.{i}", depth + 1) for i, item in enumerate(cast("Sequence[Any]", value))]
        if isinstance(value, tuple):
            return {"$tuple": items}
        if any(_holds_set(item) for item in cast("Sequence[Any]", value)):
            raise InvalidInput(field, "is a set that holds a set; make the inner ones tuples")
        return {"$set": sorted(items, key=json.dumps)}
    if isinstance(value, list):
        return [_encode(item, f"{field}.{i}", depth + 1) for i, item in enumerate(cast("list[Any]", value))]
    if (known := _ENCODERS.get(cast("type[object]", type(value)))) is not None:
        tag, encode = known
        return {tag: encode(value)}
    raise InvalidInput(field, f"is a {type(value).__name__}, which cannot be stored; convert it to JSON types first")


def _is_finite(value: float | Decimal) -> bool:
    # `math.isfinite` makes a float of a Decimal first: a large one would become infinite.
    return value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)


def _holds_set(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(_holds_set(item) for item in cast("tuple[Any, ...]", value))
    return isinstance(value, frozenset)


def _encode_mapping(value: Mapping[Any, Any], field: str, depth: int) -> dict[str, Any]:
    encoded: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise InvalidInput(field, f"has a key that is a {type(key).__name__}; keys must be text")
        check_text(key, f"{field} (a key)")
        encoded[key] = _encode(item, f"{field}.{key}", depth + 1)
    if len(encoded) == 1 and next(iter(encoded)).startswith("$"):
        return {"$object": encoded}
    return encoded


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    items = cast("dict[str, Any]", value)
    if len(items) == 1:
        (tag, inner) = next(iter(items.items()))
        if tag == "$object":
            return {key: _decode(item) for key, item in inner.items()}
        if tag == "$tuple":
            return tuple(_decode(item) for item in inner)
        if tag == "$set":
            return {_decode(item) for item in inner}
        if (decode := _DECODERS.get(tag)) is not None:
            return decode(inner)
    return {key: _decode(item) for key, item in items.items()}


def dumps(value: Any, *, field: str = "value") -> str:
    """`value` as tagged JSON text.

    Args:
        value: JSON types, and bytes, datetime, date, Decimal, UUID, tuple, set (a frozenset comes back as a set).
        field: What to call it in errors.

    Raises:
        InvalidInput: On NaN, keys that are not text, NUL, lone surrogates, other types, or too deep nesting.
    """
    return json.dumps(_encode(value, field, 0), ensure_ascii=False, separators=(",", ":"))


def loads(text: str) -> Any:
    """The value `dumps` was given."""
    return _decode(json.loads(text))


def extra_json(item: Message) -> str | None:
    """What a message holds beyond its plain columns, as tagged JSON, or None when that is nothing."""
    extra = {
        "tool_calls": [dict(call) for call in item.tool_calls],
        "tool_call_id": item.tool_call_id,
        "metadata": dict(item.metadata),
        "payload": item.payload,
    }
    held = {key: value for key, value in extra.items() if value}
    return dumps(held) if held else None


def extra_fields(text: str | None) -> dict[str, Any]:
    """The fields `extra_json` wrote, as arguments for `Message`."""
    if not text:
        return {}
    fields = cast("dict[str, Any]", loads(text))
    if "tool_calls" in fields:
        fields["tool_calls"] = tuple(ToolCall(**call) for call in fields["tool_calls"])
    return fields


def message_to_line(item: Message) -> str:
    """A message as one line of JSON for export; `message` reads it back."""
    fields: dict[str, Any] = {
        "id": item.id,
        "session_id": item.session_id,
        "user_id": item.user_id or "",
        "role": item.role,
        "name": item.name,
        "content": item.content,
        "created_at": item.created_at.isoformat().replace("+00:00", "Z"),
    }
    extra = extra_json(item)
    return json.dumps(
        {key: value for key, value in fields.items() if value is not None} | (json.loads(extra) if extra else {}),
        ensure_ascii=False,
    )
