"""From settings to stores: the only file that knows every backend. Drivers are imported when they are wired."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_data_path

from llm_memory_plugins.config import Config, KeyValueConfig, WorkingConfig, names_postgres
from llm_memory_plugins.errors import ConfigError, needs
from llm_memory_plugins.keyvalue_ports import KeyValue
from llm_memory_plugins.ports import (
    Backend,
    Clock,
    EmbeddingQueue,
    MessageLog,
    SummaryLog,
    TokenCounter,
    VectorIndex,
    WorkingSet,
)
from llm_memory_plugins.tokens import counter
from llm_memory_plugins.working_items import Rules

if TYPE_CHECKING:
    from llm_memory_plugins.stores.cached_keyvalue import CachedKeyValue
    from llm_memory_plugins.stores.copies import Store
    from llm_memory_plugins.stores.postgres import PostgresTransport
    from llm_memory_plugins.stores.sql_transport import Transport
    from llm_memory_plugins.stores.sqlite import Database
    from llm_memory_plugins.stores.supabase import SupabaseTransport


@dataclass(frozen=True, kw_only=True)
class Ports:
    """What every engine works on. `backends` are opened, pinged and closed with it; `durable` it cannot do without."""

    counter: TokenCounter
    backends: dict[str, Backend] = field(default_factory=dict[str, Backend])
    durable: str = ""


@dataclass(frozen=True, kw_only=True)
class ConversationPorts(Ports):
    """What the conversational memories work on."""

    log: MessageLog
    summaries: SummaryLog


@dataclass(frozen=True, kw_only=True)
class VectorPorts(Ports):
    """What the vector memory works on."""

    index: VectorIndex
    queue: EmbeddingQueue


@dataclass(frozen=True, kw_only=True)
class KeyValuePorts(Ports):
    """What the key-value memory works on; `cached` is `values` where these have copies in Redis."""

    values: KeyValue
    cached: CachedKeyValue | None = None


@dataclass(frozen=True, kw_only=True)
class WorkingPorts(Ports):
    """What the working memory works on."""

    items: WorkingSet


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def conversations(config: Config) -> ConversationPorts:
    """The stores of conversations a config names; nothing is opened yet.

    Raises:
        ConfigError: When a URL is of no known kind.
        MissingExtra: When a store needs a package that is not installed.
    """
    name, database = _durable(config, hot=config.redis_url is not None)
    log, summaries = _logs(database)
    backends: dict[str, Backend] = {name: database}
    ttl = float(getattr(config, "ttl_seconds", 3600))
    if config.redis_url is not None:
        from llm_memory_plugins.stores.cached import CachedMessageLog

        with needs("redis_url", "redis"):
            from llm_memory_plugins.stores.redis import RedisClient, RedisHotTier, RedisValues

        backends["redis"] = client = RedisClient(config.redis_url, timeout=config.redis_timeout)
        tier = RedisHotTier(client, ttl_seconds=ttl, prefix=lambda: _prefix(database))
        values = RedisValues(client, ttl_seconds=ttl, prefix=lambda: _prefix(database))
        log = CachedMessageLog(log, tier, others=[values])
    elif name == "sqlite":  # of a server, asking whether a copy still holds would cost as much as reading
        from llm_memory_plugins.stores.cached import CachedMessageLog
        from llm_memory_plugins.stores.local import LocalHotTier

        log = CachedMessageLog(log, LocalHotTier(ttl_seconds=ttl))
    return ConversationPorts(
        log=log, summaries=summaries, counter=counter(config.tokenizer), backends=backends, durable=name
    )


def vectors(config: Config) -> VectorPorts:
    """The stores of vector memory a config names; nothing is opened yet. Nothing of it is kept in Redis.

    Raises:
        ConfigError: When a URL is of no known kind.
        MissingExtra: When a store needs a package that is not installed.
    """
    name, database = _durable(config, hot=False)
    from llm_memory_plugins.stores.sqlite import Database

    if isinstance(database, Database):
        from llm_memory_plugins.stores.sqlite.memories import SqliteVectorIndex

        index = SqliteVectorIndex(database)
    else:
        from llm_memory_plugins.stores.sql_memories import SqlVectorIndex

        index = SqlVectorIndex(database)
    return VectorPorts(
        index=index, queue=index, counter=counter(config.tokenizer), backends={name: database}, durable=name
    )


def key_values(config: KeyValueConfig) -> KeyValuePorts:
    """The stores of values a config names; nothing is opened yet.

    Raises:
        ConfigError: When a URL is of no known kind.
        MissingExtra: When a store needs a package that is not installed.
    """
    name, database = _durable(config, hot=config.redis_url is not None)
    from llm_memory_plugins.stores.sqlite import Database

    if isinstance(database, Database):
        from llm_memory_plugins.stores.sqlite.keyvalue import SqliteKeyValue

        values = SqliteKeyValue(database)
    else:
        from llm_memory_plugins.stores.sql_keyvalue import SqlKeyValue

        values = SqlKeyValue(database)
    backends: dict[str, Backend] = {name: database}
    count = counter(config.tokenizer)
    if config.redis_url is None:
        return KeyValuePorts(values=values, counter=count, backends=backends, durable=name)
    with needs("redis_url", "redis"):
        from llm_memory_plugins.stores.redis import RedisClient, RedisValues
    from llm_memory_plugins.stores.cached_keyvalue import CachedKeyValue

    backends["redis"] = client = RedisClient(config.redis_url, timeout=config.redis_timeout)
    copies = RedisValues(client, ttl_seconds=config.hot_ttl_seconds, prefix=lambda: _prefix(database))
    cached = CachedKeyValue(values, copies)
    return KeyValuePorts(values=cached, cached=cached, counter=count, backends=backends, durable=name)


def working(config: WorkingConfig, clock: Clock) -> WorkingPorts:
    """Where working memory is kept: in Redis, or without it in this process. Nothing is opened yet.

    Args:
        config: Of the engine.
        clock: Tells the time in this process.

    Raises:
        ConfigError: When the URL is of no known kind.
        MissingExtra: When redis-py is not installed.
    """
    rules = Rules(config.capacity_limit, config.eviction_policy, config.importance_half_life_seconds)
    count = counter(config.tokenizer)
    if config.redis_url is None:
        from llm_memory_plugins.stores.local_working import LocalWorkingSet

        return WorkingPorts(items=LocalWorkingSet(rules, clock=clock), counter=count)
    with needs("redis_url", "redis"):
        from llm_memory_plugins.stores.redis import RedisClient
        from llm_memory_plugins.stores.redis.working import RedisWorkingSet

    client = RedisClient(config.redis_url, timeout=config.redis_timeout)
    return WorkingPorts(
        items=RedisWorkingSet(client, rules), counter=count, backends={"redis": client}, durable="redis"
    )


def _logs(database: Database | Transport) -> tuple[MessageLog, SummaryLog]:
    from llm_memory_plugins.stores.sqlite import Database, SqliteMessageLog, SqliteSummaryLog

    if isinstance(database, Database):
        return SqliteMessageLog(database), SqliteSummaryLog(database)
    from llm_memory_plugins.stores.sql_functions import SqlMessageLog, SqlSummaryLog

    return SqlMessageLog(database), SqlSummaryLog(database)


def _durable(config: Config, *, hot: bool) -> tuple[str, Database | PostgresTransport | SupabaseTransport]:
    """The durable store, and its name for health reports. `hot`: whether the engine keeps copies in Redis."""
    if config.supabase_url is not None and config.supabase_key is not None:
        with needs("supabase_url", "supabase"):
            from llm_memory_plugins.stores.supabase import SupabaseTransport

        return "supabase", SupabaseTransport(
            config.supabase_url,
            config.supabase_key,
            token=config.supabase_user_token,
            timeout=config.database_timeout,
            hot=hot,
        )
    url = config.database_url
    if url is not None and names_postgres(url):
        with needs("database_url", "postgres"):
            from llm_memory_plugins.stores.postgres import PostgresTransport

        return "postgresql", PostgresTransport(
            url,
            pool_size=config.database_pool_size,
            timeout=config.database_timeout,
            hot=hot,
            transaction_pooler=config.database_transaction_pooler,
        )
    from llm_memory_plugins.stores.sqlite import Database

    return "sqlite", Database(_sqlite_path(config), hot=hot)


def _prefix(store: Store) -> str:
    """What the keys of a store's copies begin with, once it is open."""
    return f"llmm:{store.identity}"


def _sqlite_path(config: Config) -> Path | None:
    """The file of a SQLite URL, or None for a database in memory."""
    if config.database_url is None:
        return user_data_path("llm-memory-plugins") / "memory.sqlite3"
    scheme, separator, path = config.database_url.get_secret_value().partition("://")
    if scheme != "sqlite" or not separator:
        raise ConfigError("database_url: begins with neither sqlite:/// nor postgresql://")
    if path in {"", "/", "/:memory:"}:
        return None
    if not path.startswith("/"):
        raise ConfigError(
            "database_url: a SQLite URL has three slashes before a relative path, four before an absolute one"
        )
    return Path(path[1:]).expanduser()
