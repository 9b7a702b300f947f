"""How memory is written into a prompt: one line a message, sections in `<memory>` tags.

Recalled text is data, not instructions. It stands inside tags that it cannot close, and a message cannot pretend to
be several or of another role: its further lines are indented, and what looks like a role before its first colon is
its own. Every line begins with something other than white space and ends in a newline, so the tokens of lines add up
to the tokens of the whole (see `TokenCounter`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import get_args

from llm_memory_plugins.records import Record
from llm_memory_plugins.types import Message, Role

_ROLES = frozenset(get_args(Role))
_COLON = re.compile("[:\u2236\ua789\ufe13\ufe55\uff1a]")  # and what looks like one
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SOURCE = 80  # characters of a source that are shown: its end, where the name of a file stands
_TAG = re.compile(r"<(?=\s*/?\s*memory\b)", re.IGNORECASE)


def quoted(text: str) -> str:
    """`text` unable to open or close a `<memory>` tag, its further lines indented by two spaces."""
    return _TAG.sub("&lt;", "\n  ".join(text.splitlines()))


def speaker(message: Message) -> str:
    """What stands before the colon of a line: the name, or the role where no name is known.

    A colon in a name becomes a space. A name that reads as a role, like `Assistant`, gives way to the message's own
    role, so what looks like a role always is it.
    """
    return _shown(message.speaker, message.role)


@lru_cache(maxsize=1024)  # a conversation has few speakers and many lines
def _shown(name: str, role: Role) -> str:
    # A slash after a newline would be joined to the line before it by o200k_base, and counts would not add up.
    name = " ".join(_COLON.sub(" ", name).split()).lstrip("/ ")
    # Readers overlook width, case, punctuation, and characters that do not show.
    letters = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name))).casefold()
    return quoted(name) if name and letters not in _ROLES else role


def message_line(message: Message) -> str:
    """A message as `speaker: text`, with its tool calls, ending in a newline."""
    said = message.content
    if message.tool_calls:
        calls = [f"[calls {call.name}({call.arguments})]" for call in message.tool_calls]
        said = "\n".join([said, *calls] if said else calls)
    return f"{speaker(message)}: {quoted(said)}\n"


def record_line(record: Record) -> str:
    """What was found of a record: `speaker: text`, or `- text` where nobody said it, ending in a newline."""
    lead = f"{_shown(record.speaker, record.role or 'user')}:" if record.speaker else "-"
    return f"{lead} {quoted(record.text)}\n"


def record_heading(record: Record) -> str:
    """What stands above records of a kind: the day something was said, or where a document comes from."""
    if record.source and not record.speaker:
        source = " ".join(record.source.split())
        name = source if len(source) <= _SOURCE else f"...{source[-_SOURCE:]}"
        return f"[{quoted(name)}]\n"
    day = record.created_at
    return f"[{day.day} {_MONTHS[day.month - 1]} {day.year}]\n"


def value_line(key: str, value: str) -> str:
    """An entry as `- key: value`, ending in a newline."""
    return f"- {quoted(' '.join(key.split()))}: {quoted(value)}\n"


def opening(source: str) -> str:
    """The line that opens the section of a source."""
    return f'<memory source="{source}">\n'


CLOSING = "</memory>\n"


def section(source: str, lines: Iterable[str]) -> str:
    """Lines inside the tags of their source; nothing at all when there are none."""
    body = "".join(lines)
    return f"{opening(source)}{body}{CLOSING}" if body else ""
