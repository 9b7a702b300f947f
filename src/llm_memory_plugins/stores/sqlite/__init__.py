"""SQLite: the embedded default, one file, no server."""

from llm_memory_plugins.stores.sqlite.database import Database
from llm_memory_plugins.stores.sqlite.messages import SqliteMessageLog
from llm_memory_plugins.stores.sqlite.summaries import SqliteSummaryLog

__all__ = ["Database", "SqliteMessageLog", "SqliteSummaryLog"]
