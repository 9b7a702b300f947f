"""The door: what callers hand in becomes a value here, checked once, or an `InvalidInput` that names the field.

One rule for every backend, so that what one store accepts no other refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, TypeVar, cast, get_args

from uuid_utils import uuid7

from llm_memory_plugins.codec import check_text, dumps, extra_json, loads
from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.types import EMPTY, ContextRequest, Message, Role, SessionRef, ToolCall

MAX_ID = 256
"""Characters of an id: PostgreSQL cannot index much longer ones."""

ROLES = get_args(Role)

ItemT = TypeVar("ItemT")
BuiltT = TypeVar("BuiltT")

_MESSAGE_FIELDS = (
    *("id", "session_id", "user_id", "role", "content", "name", "created_at"),
    *("tool_calls", "tool_call_id", "metadata", "payload"),
)
_STORED_FIELDS = ("tokens", "tokenizer", "seq")  # written by a store; ignored when they come back in
_REQUEST_FIELDS = ("session_id", "user_id", "query", "max_total_tokens", "max_tokens")


def nearest(name: str, known: Sequence[str]) -> str:
    """`did you mean 'x'?`, or the list of what is known."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"


def check_id(value: object, field: str, *, empty: bool = False) -> str:
    """An id: text of at most 256 characters, without NUL; any other character is fine.

    Raises:
        InvalidInput: Names `field`.
    """
    if not isinstance(value, str):
        raise InvalidInput(field, f"must be text, not {type(value).__name__}")
    if not value and not empty:
        raise InvalidInput(field, "must not be empty")
    if len(value) > MAX_ID:
        raise InvalidInput(field, f"has {len(value)} characters; at most {MAX_ID} are allowed")
    check_text(value, field)
    return value


def session_ref(session_id: object, user_id: object = None) -> SessionRef:
    """The reference to a session, checked.

    Raises:
        InvalidInput: Names the id at fault.
    """
    if session_id is None:
        raise InvalidInput("session_id", "is missing; say which conversation is meant")
    user = None if user_id is None else check_id(user_id, "user_id", empty=True)
    return SessionRef(check_id(session_id, "session_id"), user)


def moment(value: object, field: str) -> datetime:
    """A time from a datetime or ISO 8601 text, in UTC; without a zone it is taken as UTC.

    Raises:
        InvalidInput: Names `field`.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidInput(field, "is not ISO 8601; write it like 2026-03-01T09:30:00Z") from None
    if not isinstance(value, datetime):
        raise InvalidInput(field, f"must be a datetime or ISO 8601 text, not {type(value).__name__}")
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(field, "is too near the first or the last year") from None


def fields_of(item: object, known: Sequence[str], what: str, where: str = "") -> Mapping[str, Any]:
    """The fields of a mapping, all of which have to be known.

    Raises:
        InvalidInput: Names the unknown one and what it may have been meant to be.
    """
    if not isinstance(item, Mapping):
        raise InvalidInput(where or what, f"must be a mapping, not {type(item).__name__}")
    fields = cast("Mapping[str, Any]", item)
    for key in fields:
        if key not in known:
            at = f"{where}.{key}" if where else str(key)
            raise InvalidInput(at, f"is no field of a {what}; {nearest(str(key), known)}")
    return fields


def plain_text(value: object, field: str, hint: str = "") -> str:
    """A text that every store can keep.

    Raises:
        InvalidInput: Names `field`; ends with `hint` when it is no text.
    """
    if not isinstance(value, str):
        raise InvalidInput(field, f"must be text, not {type(value).__name__}{hint}")
    check_text(value, field)
    return value


def optional_id(value: object, field: str) -> str | None:
    """An id or a name; None for None and for the empty text.

    Raises:
        InvalidInput: Names `field`.
    """
    if value is None or value == "":
        return None
    return check_id(value, field)


def _tool_call(item: object, position: int) -> ToolCall:
    where = f"tool_calls.{position}"
    fields = fields_of(item, ("id", "name", "arguments", "type", "function"), "tool call", where)
    if "function" in fields:  # OpenAI's form, which `Context.chat` gives
        fields = {**fields, **fields_of(fields["function"], ("name", "arguments"), "function", f"{where}.function")}
    arguments = fields.get("arguments", "{}")
    return ToolCall(
        id=check_id(fields.get("id"), f"{where}.id"),
        name=check_id(fields.get("name"), f"{where}.name"),
        arguments=(
            plain_text(arguments, f"{where}.arguments")
            if isinstance(arguments, str)
            else dumps(arguments, field=f"{where}.arguments")
        ),
    )


def _tool_calls(items: object) -> tuple[ToolCall, ...]:
    if items is None:
        return ()
    if isinstance(items, str | bytes) or not isinstance(items, Sequence):
        raise InvalidInput("tool_calls", "must be a list of {id, name, arguments}")
    calls = tuple(_tool_call(call, i) for i, call in enumerate(cast("Sequence[object]", items)))
    first: dict[str, int] = {}
    for position, call in enumerate(calls):
        if (known := first.setdefault(call.id, position)) != position:
            raise InvalidInput(f"tool_calls.{position}.id", f"is that of tool_calls.{known} too; each needs its own")
    return calls


def _structure(value: object, field: str) -> Mapping[str, Any] | None:
    """A deep copy through the codec: proves that it can be stored, and later changes by the caller miss it."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidInput(field, f"must be a mapping, not {type(value).__name__}")
    return loads(dumps({**value}, field=field)) if value else EMPTY


def message(item: Message | Mapping[str, Any], *, now: datetime, max_bytes: int) -> Message:
    """A message from a mapping, checked; an id and a time are made where none is given.

    Args:
        item: `session_id`, `role`, `content`, and optionally `user_id`, `id`, `name`, `created_at`, `tool_calls`
            (each `id`, `name`, `arguments`), `tool_call_id`, `metadata`, `payload`.
        now: The time of a message that brings none.
        max_bytes: Size limit of content, metadata, tool calls and payload together, in bytes of UTF-8.

    Raises:
        InvalidInput: Names the field and the fix.
    """
    fields = fields_of(item, (*_MESSAGE_FIELDS, *_STORED_FIELDS), "message")
    ref = session_ref(fields.get("session_id"), fields.get("user_id"))
    if (role := fields.get("role")) not in ROLES:
        raise InvalidInput("role", f"is {role!r:.40}; it must be one of {', '.join(ROLES)}")
    if "content" not in fields:
        raise InvalidInput("content", "is missing; it may be empty where tool_calls or payload say something")
    calls = _tool_calls(fields.get("tool_calls"))
    content = fields["content"]
    if content is None and (calls or fields.get("payload")):
        content = ""
    tool_call_id = optional_id(fields.get("tool_call_id"), "tool_call_id")
    if role == "tool" and tool_call_id is None:
        raise InvalidInput("tool_call_id", "is missing; a tool message answers one call")
    if role == "user" and isinstance(content, str) and not (content.strip() or fields.get("payload")):
        raise InvalidInput("content", "is empty; a user message has to say something")
    if calls and role != "assistant":
        raise InvalidInput("tool_calls", f"belong to an assistant message, not to role {role!r}")
    identity, created_at = fields.get("id"), fields.get("created_at")
    built = Message(
        id=str(uuid7()) if identity is None else check_id(identity, "id"),
        session_id=ref.session_id,
        user_id=ref.user_id,
        role=cast("Role", role),
        content=plain_text(content, "content", "; put structured content into payload"),
        created_at=moment(now if created_at is None else created_at, "created_at"),
        name=optional_id(fields.get("name"), "name"),
        tool_calls=calls,
        tool_call_id=tool_call_id,
        metadata=_structure(fields.get("metadata"), "metadata") or EMPTY,
        payload=_structure(fields.get("payload"), "payload"),
    )
    size = len(built.content.encode()) + len((extra_json(built) or "").encode())
    if size > max_bytes:
        raise InvalidInput("content", f"and what goes with it take {size:,} bytes; max_message_bytes is {max_bytes:,}")
    return built


def messages(
    items: Message | Mapping[str, Any] | Sequence[Message | Mapping[str, Any]], *, now: datetime, max_bytes: int
) -> list[Message]:
    """One message or many, all checked before any is used.

    Raises:
        InvalidInput: Names the field; with several items also its position, like `3.content`.
    """
    if isinstance(items, Mapping):
        return [message(items, now=now, max_bytes=max_bytes)]
    if isinstance(items, str) or not isinstance(items, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput("message", f"must be a mapping or a list of mappings, not {type(items).__name__}")
    return each(items, lambda item: message(item, now=now, max_bytes=max_bytes))


def each(items: Iterable[ItemT], build: Callable[[ItemT], BuiltT]) -> list[BuiltT]:
    """What is built of each item.

    Raises:
        InvalidInput: Of the first that cannot be built, its position before the field, like `3.content`.
    """
    built: list[BuiltT] = []
    for position, item in enumerate(items):
        try:
            built.append(build(item))
        except InvalidInput as error:
            raise InvalidInput(f"{position}.{error.field}", str(error).removeprefix(f"{error.field}: ")) from None
    return built


def token_budget(fields: Mapping[str, Any]) -> int | None:
    """What `max_total_tokens`, or `max_tokens`, allows.

    Raises:
        InvalidInput: Names `max_total_tokens`.
    """
    budget = fields.get("max_total_tokens")
    budget = fields.get("max_tokens") if budget is None else budget
    if budget is not None and (not isinstance(budget, int) or isinstance(budget, bool) or not 0 < budget < 2**31):
        raise InvalidInput("max_total_tokens", "must be a whole number of tokens, at least 1 and below 2**31")
    return budget


def context_request(request: ContextRequest | Mapping[str, Any] | str) -> ContextRequest:
    """A question to a memory, from a mapping or from a session's id alone.

    Raises:
        InvalidInput: Names the field and the fix.
    """
    if isinstance(request, str):
        request = {"session_id": request}
    fields = fields_of(request, _REQUEST_FIELDS, "context request")
    ref = session_ref(fields.get("session_id"), fields.get("user_id"))
    query = fields.get("query")
    return ContextRequest(
        session_id=ref.session_id,
        user_id=ref.user_id,
        query="" if query is None else plain_text(query, "query"),
        max_total_tokens=token_budget(fields),
    )
