"""Memory for LLM applications: remembers turns, and composes the best context that fits a token budget.

The public names are loaded when they are first used: importing the package imports no driver and no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llm_memory_plugins._version import __version__

if TYPE_CHECKING:
    from llm_memory_plugins.context import Context
    from llm_memory_plugins.engines.buffer import ConversationBufferMemory
    from llm_memory_plugins.engines.summary import ConversationSummaryMemory
    from llm_memory_plugins.types import ContextRequest, MemoryType, Message

_HOMES = {
    "Context": "context",
    "ContextRequest": "types",
    "ConversationBufferMemory": "engines.buffer",
    "ConversationSummaryMemory": "engines.summary",
    "MemoryType": "types",
    "Message": "types",
}

__all__ = [
    "Context",
    "ContextRequest",
    "ConversationBufferMemory",
    "ConversationSummaryMemory",
    "MemoryType",
    "Message",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"llm_memory_plugins.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'llm_memory_plugins' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
