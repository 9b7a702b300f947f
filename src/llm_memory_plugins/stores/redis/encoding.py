"""A session's end as the elements of a Redis list, and back.

::

    ["S",seq,...]      optional: the newest system message before the list
    ["O",seq,...]      optional: the user message that opened the turn in which the list begins
    ["u",seq,...]      messages, oldest first; s, u, a, t: the role
    ["H",epoch,last_seq,cap,message_count,turn_count,tokens,first_at,last_at]   last

or one tombstone, `["T",epoch,last_seq]`. The letter stands at a fixed place, so neither Lua nor a reader who counts
turns takes an element apart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from llm_memory_plugins.codec import extra_fields, extra_json
from llm_memory_plugins.types import EMPTY, Message, Role, SessionRef, SessionStats, Tail, Window

FEWEST = 20
"""Messages a copy may hold at least, however short the window it was filled for."""

_LETTERS: dict[Role, str] = {"system": "s", "user": "u", "assistant": "a", "tool": "t"}
_ROLES: dict[str, Role] = {"S": "system", "O": "user", **{letter: role for role, letter in _LETTERS.items()}}
_SMALL = 4096  # bytes of an element that is worth remembering
_AT = 2  # where in an element the letter stands
_HEADER, _SYSTEM, _OPENING, _SAID_BY_SYSTEM, _SAID_BY_USER = b"HSOsu"


def _dumps(fields: Sequence[Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def encode_message(message: Message, letter: str | None = None) -> str:
    """A stored message as an element."""
    return _dumps(
        (
            letter or _LETTERS[message.role],
            message.seq,
            message.id,
            message.content,
            message.created_at.isoformat(),
            message.tokens,
            message.tokenizer,
            message.name,
            extra_json(message),
        )
    )


def encode_counts(stats: SessionStats) -> str:
    """The end of a header: what follows its `cap`."""
    counts = (stats.message_count, stats.turn_count, stats.tokens, _iso(stats.first_at), _iso(stats.last_at))
    return _dumps(counts)[1:]


def encode_copy(tail: Tail) -> list[str]:
    """A whole copy."""
    stats, cap = tail.stats, max(FEWEST, len(tail.messages))
    return [
        *([encode_message(tail.system, "S")] if tail.system else ()),
        *([encode_message(tail.opening, "O")] if tail.opening else ()),
        *(encode_message(message) for message in tail.messages),
        f'["H",{stats.epoch},{stats.last_seq},{cap},{encode_counts(stats)}',
    ]


def decode_copy(elements: Sequence[bytes], session: SessionRef, window: Window) -> Tail | None:
    """As much of a copy's end as `window` asks for, at least; None for a tombstone, or what is no copy of ours."""
    try:
        return _decode(elements, session, window) if elements and elements[-1][_AT] == _HEADER else None
    except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError):
        return None


def _decode(elements: Sequence[bytes], session: SessionRef, window: Window) -> Tail:
    letters = bytes([element[_AT] for element in elements])
    begin = sum(letter in (_SYSTEM, _OPENING) for letter in letters[:2])
    start = _start(letters, begin, window.size) if window.kind == "turns" else begin
    before = [i for i in (_system(letters, start), _opening(letters, start)) if i is not None]
    _, epoch, last_seq, _, message_count, turn_count, tokens, first_at, last_at = json.loads(elements[-1])
    user = session.user_id or ""
    shown = [*(elements[i] for i in before), *elements[start:-1]]
    messages = [_message(element, session.session_id, user) for element in shown]
    earlier = {message.role: message for message in messages[: len(before)]}
    stats = SessionStats(
        session_id=session.session_id,
        user_id=user,
        epoch=int(epoch),
        last_seq=int(last_seq),
        message_count=int(message_count),
        turn_count=int(turn_count),
        tokens=int(tokens),
        first_at=first_at and datetime.fromisoformat(first_at),
        last_at=last_at and datetime.fromisoformat(last_at),
    )
    return Tail(
        stats=stats,
        messages=tuple(messages[len(before) :]),
        opening=earlier.get("user"),
        system=earlier.get("system"),
    )


def _start(letters: bytes, begin: int, turns: int) -> int:
    """Where the last `turns` user messages begin, or the copy where it has fewer."""
    start = len(letters)
    for _ in range(turns):
        start = letters.rfind(_SAID_BY_USER, begin, start)
        if start < 0:
            return begin
    return start


def _system(letters: bytes, start: int) -> int | None:
    """The newest system message before `start`."""
    found = max(letters.rfind(_SAID_BY_SYSTEM, 0, start), letters.rfind(_SYSTEM, 0, start))
    return found if found >= 0 else None


def _opening(letters: bytes, start: int) -> int | None:
    """The user message of the turn in which the messages from `start` on begin, when it lies before them."""
    if letters[start] == _SAID_BY_USER:
        return None
    found = max(letters.rfind(_SAID_BY_USER, 0, start), letters.rfind(_OPENING, 0, start))
    return found if found >= 0 else None


def _message(element: bytes, session_id: str, user_id: str) -> Message:
    if len(element) <= _SMALL and element.endswith(b",null]"):  # with extra fields it could be changed by who reads it
        return _remembered(element, session_id, user_id)
    return _made(element, session_id, user_id)


@lru_cache(maxsize=4096)
def _remembered(element: bytes, session_id: str, user_id: str) -> Message:
    """Read once: the next read of a session shows the same messages but for one turn."""
    return _made(element, session_id, user_id)


def forget() -> None:
    """Drop what was read before."""
    _remembered.cache_clear()


def _made(element: bytes, session_id: str, user_id: str) -> Message:
    letter, seq, identity, content, created_at, tokens, tokenizer, name, extra = json.loads(element)
    message = Message(
        id=identity,
        session_id=session_id,
        user_id=user_id,
        role=_ROLES[letter],
        content=content,
        created_at=datetime.fromisoformat(created_at),
        name=name,
        metadata=EMPTY,
        tokens=tokens,
        tokenizer=tokenizer,
        seq=seq,
    )
    return replace(message, **extra_fields(extra)) if extra else message
