"""Questions to metadata: a small language, read once, and asked alike in every store. Pure.

A store that runs Python asks with `matcher`, PostgreSQL with the text of `jsonpath`; the two have the same truth value
for every question and all metadata, since both ask `plain(metadata)` and nothing is ever unknown:

- A comparison is false where the key is missing or its value is of another type, and `$ne`, `$nin` and `$not` are the
  opposite of what they deny: true there.
- Numbers are compared as the decimals they are written as, texts by code point; no boolean is a number.
- A list equals nothing; `$contains` asks for one of its elements.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from operator import ge, gt, le, lt
from typing import Any, Literal, TypeAlias, cast
from uuid import UUID

from llm_memory_plugins.errors import InvalidInput

__all__ = ["All", "Comparison", "Filter", "Not", "Some", "jsonpath", "matcher", "parse", "plain"]

Operator = Literal["eq", "gt", "gte", "lt", "lte", "in", "contains", "exists"]

MAX_DEPTH = 32
MAX_VALUES = 1_000
MAX_TEXT = 10_000
"""Characters of one text or key."""
MAX_PATTERN = 1_000
"""Characters of a text to be contained: for PostgreSQL it is a regular expression, of which longer ones take memory by
the square of their length."""

_LARGEST = 10**4000  # more than any whole number that metadata may hold, and few enough digits to be read back
_LOGICAL = ("$and", "$or", "$not")
_COMPARING = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$contains", "$exists")
_DENYING = {"$ne": "eq", "$nin": "in"}
_ORDERS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "gt": (">", gt),
    "gte": (">=", ge),
    "lt": ("<", lt),
    "lte": ("<=", le),
}
_EXAMPLE = 'like {"lang": "en", "year": {"$gte": 2020}, "author": {"name": "Ann"}}; a dot in a key is a dot'
_SCALARS = (str, int, float, Decimal, datetime, date, UUID, bytes)  # and None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition on the value at `path`, a key of the metadata and keys within its value."""

    path: tuple[str, ...]
    operator: Operator
    value: Any


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; true without any."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one part holds; false without any."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


Filter: TypeAlias = Comparison | All | Some | Not


def parse(given: Mapping[str, Any] | Filter, field: str = "filter") -> Filter:
    """A filter from a mapping like `{"lang": "en", "year": {"$gte": 2020}, "author": {"name": "Ann"}}`.

    Several keys must all hold. A key is taken literally, a dot in it is a dot: what is nested is asked by nesting.
    Keys that begin with `$` are operators:

    - `$eq`, `$ne`, `$in`, `$nin`: a text, number, boolean or None, or a list of them. A value alone means `$eq`.
    - `$gt`, `$gte`, `$lt`, `$lte`: a number, which is compared with numbers, or a text, with texts.
    - `$contains`: what a list holds as an element, or the text that a text holds.
    - `$exists`: whether there is such a key, be its value None.
    - `$and`, `$or` with a list of filters, `$not` with one; also of conditions within a field.

    Values of other types are asked in the form that `plain` gives them: a datetime is later than another just when its
    text is greater.

    Args:
        given: The mapping, or a filter that was parsed before.
        field: What to call it in errors.

    Raises:
        InvalidInput: Names the place, like `filter.year.$gt`. Also for more than 32 levels, 1,000 values, 10,000
            characters in a text, or 1,000 in one to be contained.
    """
    if isinstance(given, Comparison | All | Some | Not):
        return given
    if not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(field, f"must be a mapping {_EXAMPLE}")
    return _Reader().conditions(given, (), field, 1) if given else All(())


class _Reader:
    """Reads one filter, and counts what it reads."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def conditions(self, given: Any, path: tuple[str, ...], where: str, depth: int) -> Filter:
        """What a mapping says of the value at `path`."""
        if depth > MAX_DEPTH:
            raise InvalidInput(where.split(".", maxsplit=1)[0], f"is nested deeper than {MAX_DEPTH} levels")
        if not isinstance(given, Mapping) or not given:
            raise InvalidInput(where, f"must be a mapping that is not empty, {_EXAMPLE}")
        fields = cast("Mapping[Any, Any]", given)
        names = [_key(key, where) for key in fields]
        comparing = [name for name in names if name.startswith("$") and name not in _LOGICAL]
        for name in comparing:
            if name not in _COMPARING:
                raise InvalidInput(
                    f"{where}.{name}", f"is no operator; known are {', '.join((*_COMPARING, *_LOGICAL))}"
                )
            if not path:
                raise InvalidInput(f"{where}.{name}", f'asks no field; write it like {{"year": {{"{name}": ...}}}}')
        if comparing and any(not name.startswith("$") for name in names):
            raise InvalidInput(where, f"mixes {comparing[0]!r} with keys; put them side by side into a list of $and")
        parts = tuple(self._condition(name, fields[name], path, f"{where}.{name}", depth) for name in names)
        return parts[0] if len(parts) == 1 else All(parts)

    def _condition(self, name: str, given: Any, path: tuple[str, ...], where: str, depth: int) -> Filter:
        if name == "$not":
            return Not(self._asked(given, path, where, depth))
        if name in _LOGICAL:
            if not isinstance(given, list | tuple) or not given:
                raise InvalidInput(where, "must be a list of filters that is not empty")
            items = enumerate(cast("Sequence[Any]", given))
            parts = tuple(self._asked(item, path, f"{where}.{i}", depth) for i, item in items)
            return All(parts) if name == "$and" else Some(parts)
        if name.startswith("$"):
            return self._comparison(name, given, path, where)
        return self._asked(given, (*path, name), where, depth)

    def _asked(self, given: Any, path: tuple[str, ...], where: str, depth: int) -> Filter:
        if path and not isinstance(given, Mapping):
            return self._comparison("$eq", given, path, where)
        return self.conditions(given, path, where, depth + 1)

    def _comparison(self, name: str, given: Any, path: tuple[str, ...], where: str) -> Filter:
        operator = cast("Operator", _DENYING.get(name, name[1:]))
        if operator == "exists":
            if not isinstance(given, bool):
                raise InvalidInput(where, f"must be True or False, not {type(given).__name__}")
            self._count(where)
            asked = Comparison(path, operator, True)
            return asked if given else Not(asked)
        if operator == "in":
            if not isinstance(given, list | tuple | set | frozenset):
                raise InvalidInput(where, f"must be a list of values, not {type(given).__name__}")
            items = enumerate(cast("Sequence[Any]", given))
            value: Any = tuple(self._value(item, f"{where}.{i}") for i, item in items)
        else:
            value = self._value(given, where, MAX_PATTERN if operator == "contains" else MAX_TEXT)
            if operator in _ORDERS and (value is None or isinstance(value, bool)):
                raise InvalidInput(where, f"must be a number, a text or a time, not {type(given).__name__}")
        found = Comparison(path, operator, value)
        return Not(found) if name in _DENYING else found

    def _value(self, given: Any, where: str, most: int = MAX_TEXT) -> Any:
        self._count(where)
        if given is not None and not isinstance(given, _SCALARS):
            kind = type(cast("object", given)).__name__
            hint = "; use $in or $contains" if kind in ("list", "tuple", "set", "frozenset") else ""
            raise InvalidInput(where, f"must be a text, number, boolean, time or None, not {kind}{hint}")
        if isinstance(given, str):
            _check(given, where, most)
        if isinstance(given, float | Decimal) and not _finite(given):
            raise InvalidInput(where, "is not a finite number")
        return _plain(given)

    def _count(self, where: str) -> None:
        self._left -= 1
        if self._left < 0:
            raise InvalidInput(where.split(".", maxsplit=1)[0], f"asks for more than {MAX_VALUES:,} values")


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise InvalidInput(where, f"has a key that is a {type(key).__name__}; keys must be text")
    _check(key, f"{where} (a key)")
    return key


def _check(text: str, where: str, most: int = MAX_TEXT) -> None:
    if len(text) > most:
        raise InvalidInput(where, f"has {len(text):,} characters; at most {most:,} are allowed")
    if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise InvalidInput(where, "holds a NUL character or a lone surrogate, which no metadata can hold")


def _finite(number: float | Decimal) -> bool:
    return number.is_finite() if isinstance(number, Decimal) else math.isfinite(number)


def plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The form in which metadata is asked: JSON types alone, and of equal numbers one.

    A datetime becomes text in UTC with microseconds, like `2026-03-01T09:30:00.000000+00:00` (without a zone it is
    taken as UTC), a date `2026-03-01`, a UUID its text, bytes base64 text, a tuple or set a list. Numbers are the
    decimals they are written as: whole ones become int, of any size (1e23 is 10**23), the others float. So a Decimal
    that is not whole counts as the nearest double, which keeps 15 digits of it, and one from 10**4000 on as that.

    Args:
        metadata: What `codec.dumps` takes.
    """
    return {key: _plain(value) for key, value in metadata.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return str.__str__(value)  # of an Enum that is text, its value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float | Decimal):
        return _number(value)
    if isinstance(value, Mapping):
        return plain(cast("Mapping[str, Any]", value))
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, datetime):
        return _instant(value).isoformat(timespec="microseconds")
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return str(value)  # of a date and a UUID


def _number(value: float | Decimal) -> int | float:
    """So that Python compares any two of these as PostgreSQL compares their decimal texts.

    It would not for 1e23, which it takes for 99999999999999991611392. A double that is not whole stands to all others,
    and to all whole numbers, as its text does.
    """
    if isinstance(value, int):
        return max(-_LARGEST, min(int(value), _LARGEST))
    if isinstance(value, float) and not value.is_integer():
        return float(value)
    exact = value if isinstance(value, Decimal) else Decimal(repr(float(value)))
    if exact and exact.adjusted() >= 4000:  # before anybody writes out the digits of 1E+999999999
        return _LARGEST if exact > 0 else -_LARGEST
    whole = round(exact)
    if exact == whole or abs(whole) >= 2**53:  # no double is finer there
        return whole
    double = float(exact)
    return int(double) if double.is_integer() else double


def _instant(value: datetime) -> datetime:
    if value.utcoffset() is None:
        return value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:  # hours before the first or behind the last year
        return (datetime.min if value.year == 1 else datetime.max).replace(tzinfo=UTC)


def matcher(condition: Filter) -> Callable[[Mapping[str, Any]], bool]:
    """The filter as a predicate of plain metadata."""
    if isinstance(condition, Not):
        part = matcher(condition.part)
        return lambda metadata: not part(metadata)
    if isinstance(condition, All | Some):
        parts = [matcher(part) for part in condition.parts]
        if isinstance(condition, All):
            return lambda metadata: all(part(metadata) for part in parts)
        return lambda metadata: any(part(metadata) for part in parts)
    test = _test(condition.operator, condition.value)
    *outer, last = condition.path
    if not outer:
        return lambda metadata: test(metadata.get(last, _MISSING))

    def nested(metadata: Mapping[str, Any]) -> bool:
        for key in outer:
            inner = metadata.get(key)
            if not isinstance(inner, dict):
                return False
            metadata = cast("dict[str, Any]", inner)
        return test(metadata.get(last, _MISSING))

    return nested


_MISSING: Any = object()


def _test(operator: Operator, value: Any) -> Callable[[Any], bool]:
    if operator == "exists":
        return lambda found: found is not _MISSING
    if operator == "eq":
        return _equal(value)
    if operator == "in":
        known = frozenset((isinstance(item, bool), item) for item in value)
        return lambda found: not isinstance(found, list | dict) and (isinstance(found, bool), found) in known
    if operator == "contains":
        equal = _equal(value)

        def holds(found: Any) -> bool:
            if isinstance(found, list):
                return any(equal(item) for item in cast("list[Any]", found))
            return isinstance(found, str) and isinstance(value, str) and value in found

        return holds
    order = _ORDERS[operator][1]
    types = (str,) if isinstance(value, str) else (int, float)
    return lambda found: type(found) in types and order(found, value)


def _equal(value: Any) -> Callable[[Any], bool]:
    if value is None or isinstance(value, bool):
        return lambda found: found is value
    return lambda found: found == value and not isinstance(found, bool)


def jsonpath(condition: Filter) -> str:
    """The filter as a jsonpath of PostgreSQL, to be bound: `metadata @@ path` is its truth value, never null."""
    return f"strict {_predicate(condition)}"


def _predicate(condition: Filter) -> str:
    if isinstance(condition, Not):
        return f"!({_predicate(condition.part)})"
    if isinstance(condition, All | Some):
        sign, nothing = (" && ", "1 == 1") if isinstance(condition, All) else (" || ", "1 == 0")
        return sign.join(f"({_predicate(part)})" for part in condition.parts) or nothing
    # Strict, since lax compares the elements of a list as if each stood there alone. What fails (a key that is not
    # there, a value of another type) is unknown then, and what is unknown to a filter, `?`, is left out by it.
    at = "@" + "".join(f".{_literal(key)}" for key in condition.path)
    value = condition.value
    if condition.operator == "exists":
        return f"exists($ ? (exists({at})))"
    if condition.operator == "contains":
        found = f"exists($ ? (exists({at}[*] ? (@ == {_literal(value)}))))"
        if isinstance(value, str):
            found += f' || exists($ ? ({at} like_regex {_literal(value)} flag "q"))'
        return found
    if condition.operator == "in":
        tests = " || ".join(f"@ == {_literal(item)}" for item in value) or "1 == 0"
        return f"exists($ ? (exists({at} ? ({tests}))))"
    sign = "==" if condition.operator == "eq" else _ORDERS[condition.operator][0]
    return f"exists($ ? ({at} {sign} {_literal(value)}))"


def _literal(value: Any) -> str:
    # Every text, number and name of JSON is one of jsonpath.
    return json.dumps(value, ensure_ascii=False)
