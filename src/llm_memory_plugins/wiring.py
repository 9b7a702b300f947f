"""From settings to ports: the only file that knows every backend. Drivers are imported when they are wired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from platformdirs import user_data_path
from pydantic import SecretStr

from llm_memory_plugins.config import Config, SummaryConfig, names_postgres
from llm_memory_plugins.errors import ConfigError, needs
from llm_memory_plugins.ports import Backend, HotTier, MessageLog, Summariser, SummaryLog, TokenCounter
from llm_memory_plugins.stores.copies import Store
from llm_memory_plugins.telemetry import logger
from llm_memory_plugins.tokens import counter

if TYPE_CHECKING:
    from llm_memory_plugins.providers.gemini import GeminiChatModel
    from llm_memory_plugins.providers.openai import OpenAIChatModel


class DurableBackend(Backend, Store, Protocol):
    """What is opened with an engine and tells which store it is."""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """What an engine works on. `backends` are opened, pinged and closed with it; `durable` it cannot do without."""

    log: MessageLog
    summaries: SummaryLog
    counter: TokenCounter
    backends: dict[str, Backend] = field(default_factory=dict[str, Backend])
    durable: str = ""


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def connect(config: Config) -> Ports:
    """The stores a config names; nothing is opened yet.

    Raises:
        ConfigError: When a URL is of no known kind.
        MissingExtra: When a store needs a package that is not installed.
    """
    name, log, summaries, database = _durable(config)
    backends: dict[str, Backend] = {name: database}
    ttl = float(getattr(config, "ttl_seconds", 3600))
    if config.redis_url is not None:
        from llm_memory_plugins.stores.cached import CachedMessageLog

        tier, redis = _redis(config.redis_url, ttl, config.redis_timeout, lambda: f"llmm:{database.identity}")
        log, backends["redis"] = CachedMessageLog(log, tier), redis
    elif name == "sqlite":  # of a server, asking whether a copy still holds would cost as much as reading
        from llm_memory_plugins.stores.cached import CachedMessageLog
        from llm_memory_plugins.stores.local import LocalHotTier

        log = CachedMessageLog(log, LocalHotTier(ttl_seconds=ttl))
    return Ports(log=log, summaries=summaries, counter=counter(config.tokenizer), backends=backends, durable=name)


def _durable(config: Config) -> tuple[str, MessageLog, SummaryLog, DurableBackend]:
    """The durable store: its name for health reports, the ports, and what has to be opened."""
    hot = config.redis_url is not None
    if config.supabase_url is not None and config.supabase_key is not None:
        with needs("supabase_url", "supabase"):
            from llm_memory_plugins.stores.sql_functions import SqlMessageLog, SqlSummaryLog
            from llm_memory_plugins.stores.supabase import SupabaseTransport

        api = SupabaseTransport(
            config.supabase_url,
            config.supabase_key,
            token=config.supabase_user_token,
            timeout=config.database_timeout,
            hot=hot,
        )
        return "supabase", SqlMessageLog(api), SqlSummaryLog(api), api
    url = config.database_url
    if url is not None and names_postgres(url):
        with needs("database_url", "postgres"):
            from llm_memory_plugins.stores.postgres import PostgresTransport
            from llm_memory_plugins.stores.sql_functions import SqlMessageLog, SqlSummaryLog

        direct = PostgresTransport(
            url,
            pool_size=config.database_pool_size,
            timeout=config.database_timeout,
            hot=hot,
            transaction_pooler=config.database_transaction_pooler,
        )
        return "postgresql", SqlMessageLog(direct), SqlSummaryLog(direct), direct
    from llm_memory_plugins.stores.sqlite import Database, SqliteMessageLog, SqliteSummaryLog

    database = Database(_sqlite_path(config), hot=hot)
    return "sqlite", SqliteMessageLog(database), SqliteSummaryLog(database), database


def _redis(url: SecretStr, ttl: float, timeout: float, prefix: Callable[[], str]) -> tuple[HotTier, Backend]:
    with needs("redis_url", "redis"):
        from llm_memory_plugins.stores.redis import RedisClient, RedisHotTier

    client = RedisClient(url, timeout=timeout)
    return RedisHotTier(client, ttl_seconds=ttl, prefix=prefix), client


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


def summariser(config: SummaryConfig, tokens: TokenCounter) -> tuple[Summariser, dict[str, Backend]]:
    """The summariser a config asks for, and the model behind it, if any.

    Raises:
        ConfigError: When `summarization_model` names a provider there is no key for.
        MissingExtra: When it names one whose package is not installed.
    """
    model = _chat_model(config)
    if model is None:
        from llm_memory_plugins.providers.offline import OfflineSummariser

        return OfflineSummariser(count=tokens.count), {}
    from llm_memory_plugins.providers.summariser import ModelSummariser

    return ModelSummariser(model, count=tokens.count), {"model": model}


def _chat_model(config: SummaryConfig) -> OpenAIChatModel | GeminiChatModel | None:
    name = config.summarization_model
    if name == "offline":
        return None
    if name is None:
        provider = "gemini" if config.google_api_key else "openai" if config.openai_api_key else None
        package = {"gemini": "google.genai", "openai": "openai"}.get(provider or "")
        if package and not _installed(package):
            logger.warning(
                "there is a key for %s but its package is not installed, so summaries are made offline; "
                "pip install 'llm-memory-plugins[%s]'",
                *(provider, provider),
            )
            return None
    else:
        provider = _provider(name, config)
    if provider == "gemini":
        if config.google_api_key is None:
            raise ConfigError(f"summarization_model={name!r} needs google_api_key (or GOOGLE_API_KEY)")
        from llm_memory_plugins.providers.gemini import GeminiChatModel

        return GeminiChatModel(
            api_key=config.google_api_key, model=name, base_url=config.google_base_url, timeout=config.model_timeout
        )
    if provider == "openai":
        if config.openai_api_key is None:
            raise ConfigError(f"summarization_model={name!r} needs openai_api_key (or OPENAI_API_KEY)")
        from llm_memory_plugins.providers.openai import OpenAIChatModel

        return OpenAIChatModel(
            api_key=config.openai_api_key, model=name, base_url=config.openai_base_url, timeout=config.model_timeout
        )
    return None


def _provider(name: str, config: SummaryConfig) -> str:
    """Whose model that is. A server that speaks OpenAI's protocol may call its models anything."""
    if name.removeprefix("models/").startswith(("gemini", "gemma")):
        return "gemini"
    if config.openai_base_url or name.startswith(("gpt-", "chatgpt", "o1", "o3", "o4", "ft:")):
        return "openai"
    raise ConfigError(
        f"summarization_model={name!r} is neither 'offline' nor a model of Gemini's or OpenAI's; "
        "for another server that speaks OpenAI's protocol set openai_base_url too"
    )


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
