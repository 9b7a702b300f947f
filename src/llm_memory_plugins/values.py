"""What the values of key-value memory may be, and how they are changed: text in stores, patches, and prompts."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from llm_memory_plugins.codec import dumps, loads
from llm_memory_plugins.errors import InvalidInput

JSON, BYTES = "json", "bytes"
"""The two kinds of values: tagged JSON, and bytes as they are."""

LAST = "\U0010ffff"


def serialise(key: str, value: Any, *, as_json: bool, max_bytes: int) -> tuple[str, bytes]:
    """The kind of a value, and its bytes.

    Args:
        key: Whose value it is, for errors.
        value: What `codec.dumps` takes, or, unless `as_json`, bytes.
        as_json: Whether values are JSON here.
        max_bytes: Size limit of the result.

    Raises:
        InvalidInput: Names the key, or the place in its value.
    """
    if as_json:
        try:
            kind, data = JSON, dumps(value).encode()
        except InvalidInput as error:
            problem = str(error).removeprefix(f"{error.field}: ")
            raise InvalidInput(key + error.field.removeprefix("value"), problem) from None
    elif isinstance(value, bytes | bytearray | memoryview):
        kind, data = BYTES, bytes(cast("bytes", value))
    else:
        raise InvalidInput(key, f"is a {type(value).__name__}; without serialize_json values are bytes: encode it")
    if len(data) > max_bytes:
        raise InvalidInput(key, f"takes {len(data):,} bytes; max_value_bytes is {max_bytes:,}")
    return kind, data


def as_text(kind: str, data: bytes) -> str:
    """How a value is kept that is neither compressed nor encrypted."""
    return data.decode() if kind == JSON else b64encode(data).decode()


def from_text(kind: str, text: str) -> Any:
    """The value that `as_text` was made from.

    Raises:
        ValueError, TypeError, ArithmeticError, LookupError, RecursionError: When it was made from none.
    """
    if kind == JSON:
        return loads(text) if '"$' in text else json.loads(text)  # where there is no tag there is nothing to look for
    if kind == BYTES:
        return b64decode(text, validate=True)
    raise ValueError(kind)


def add(value: Any, by: float) -> float | None:
    """Their sum, exact for whole numbers; None where `value` is no number, or the sum is none.

    Whole numbers stay whole; anything else is added in double precision.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and isinstance(by, int):
        return value + by
    try:
        total = float(value) + float(by)
    except OverflowError:
        return None
    return total if abs(total) != float("inf") else None


def merge_patch(target: Any, patch: Any) -> Any:
    """`target` changed by a JSON merge patch (RFC 7396): None takes a member away, a mapping goes into a mapping.

    Neither of the two is changed itself.
    """
    if not isinstance(patch, Mapping):
        return patch
    merged: dict[str, Any] = {**cast("Mapping[str, Any]", target)} if isinstance(target, Mapping) else {}
    for name, change in cast("Mapping[str, Any]", patch).items():
        if change is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), change)
    return merged


def end_of_prefix(prefix: str) -> str | None:
    """The text behind all that begin with `prefix`, in the order of code points; None when there is none."""
    kept = prefix.rstrip(LAST)
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # between these lie surrogates, no characters


def shown(value: Any) -> str:
    """A value as a model reads it: text as it is, the rest as plain JSON without tags."""
    return value if isinstance(value, str) else json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, AbstractSet):
        return sorted((_plain(item) for item in cast("AbstractSet[Any]", value)), key=repr)
    if isinstance(value, bytes):
        return f"({len(value):,} bytes)"
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal | UUID) else value
