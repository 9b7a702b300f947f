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
    from llm_memory_plugins.engines.keyvalue import KeyValueStoreMemory
    from llm_memory_plugins.engines.summary import ConversationSummaryMemory
    from llm_memory_plugins.engines.vector import VectorDatabaseMemory
    from llm_memory_plugins.engines.working import WorkingMemory
    from llm_memory_plugins.key_values import StoredValue
    from llm_memory_plugins.records import Record
    from llm_memory_plugins.types import ContextRequest, MemoryType, Message
    from llm_memory_plugins.working_items import WorkingItem

_HOMES = {
    "Context": "context",
    "ContextRequest": "types",
    "ConversationBufferMemory": "engines.buffer",
    "ConversationSummaryMemory": "engines.summary",
    "KeyValueStoreMemory": "engines.keyvalue",
    "MemoryType": "types",
    "Message": "types",
    "Record": "records",
    "StoredValue": "key_values",
    "VectorDatabaseMemory": "engines.vector",
    "WorkingItem": "working_items",
    "WorkingMemory": "engines.working",
}

__all__ = [
    "Context",
    "ContextRequest",
    "ConversationBufferMemory",
    "ConversationSummaryMemory",
    "KeyValueStoreMemory",
    "MemoryType",
    "Message",
    "Record",
    "StoredValue",
    "VectorDatabaseMemory",
    "WorkingItem",
    "WorkingMemory",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"llm_memory_plugins.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'llm_memory_plugins' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
