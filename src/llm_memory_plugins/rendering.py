"""How memory is written into a prompt: one line a message, sections in `<memory>` tags.

Recalled text is data, not instructions. It stands inside tags that it cannot close, and a message cannot pretend to
be several: its further lines are indented. Every line begins with something other than white space and ends in a
newline, so the tokens of lines add up to the tokens of the whole (see `TokenCounter`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from llm_memory_plugins.types import Message

_TAG = re.compile(r"<(?=\s*/?\s*memory\b)", re.IGNORECASE)


def quoted(text: str) -> str:
    """`text` unable to open or close a `<memory>` tag, its further lines indented by two spaces."""
    return _TAG.sub("&lt;", "\n  ".join(text.splitlines()))


def message_line(message: Message) -> str:
    """A message as `speaker: text`, with its tool calls, ending in a newline."""
    # A slash after a newline would be joined to the line before it by o200k_base, and counts would not add up.
    speaker = " ".join(message.speaker.split()).lstrip("/ ") or message.role
    calls = [f"[calls {call.name}({call.arguments})]" for call in message.tool_calls]
    said = "\n".join([message.content, *calls] if message.content else calls)
    return f"{quoted(speaker)}: {quoted(said)}\n"


def opening(source: str) -> str:
    """The line that opens the section of a source."""
    return f'<memory source="{source}">\n'


CLOSING = "</memory>\n"


def section(source: str, lines: Iterable[str]) -> str:
    """Lines inside the tags of their source; nothing at all when there are none."""
    body = "".join(lines)
    return f"{opening(source)}{body}{CLOSING}" if body else ""
