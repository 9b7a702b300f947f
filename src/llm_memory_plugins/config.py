"""Settings: one model per engine over one flat key space.

Every engine takes a dict, its typed config, or nothing. A dict may hold the keys of every engine; each takes its own.
A key that no engine knows is an error. What the dict leaves out comes from the environment, `LLM_MEMORY_<KEY>` or the
providers' usual variables, read when the engine is built.
"""

from __future__ import annotations

import binascii
import json
import os
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from llm_memory_plugins.boundary import nearest
from llm_memory_plugins.errors import ConfigError
from llm_memory_plugins.telemetry import logger
from llm_memory_plugins.tokens import TokenizerName
from llm_memory_plugins.types import MemoryType, WindowType
from llm_memory_plugins.working_boundary import MAX_TTL
from llm_memory_plugins.working_items import EvictionPolicy

PREFIX = "LLM_MEMORY_"

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ConfigT = TypeVar("ConfigT", bound="Config")


def _usual(name: str, *usual: str) -> Any:
    """A secret that also comes from the variables its provider's own tools read."""
    return Field(default=None, validation_alias=AliasChoices(PREFIX + name.upper(), *usual))


class Config(BaseSettings):
    """The settings all engines share: where things are kept, which models there are, whose engine this is.

    Attributes:
        database_url: `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite:///:memory:` or
            `postgresql://...`. Default: a SQLite file in the user's data directory.
        redis_url: Hot copy of the end of sessions, shared by all processes; and where working memory is kept.
        redis_timeout: Seconds a command may take before the durable store is read instead.
        supabase_url, supabase_key: The durable store over Supabase's API, instead of `database_url`.
        supabase_user_token: The access token of the one user this engine acts for; the key may then be a publishable
            one. `user_id` is the token's subject.
        database_pool_size: Connections to PostgreSQL at most.
        database_timeout: Seconds a call of the durable store may take.
        database_transaction_pooler: True behind PgBouncer or Supavisor in transaction mode.
        openai_base_url, google_base_url: Another address that speaks the provider's protocol.
        user_id: The one user this engine is for. Anything of another user is refused.
        require_user: A call that names no user is refused, instead of meaning the one session of that name.
        tokenizer: What counts tokens. `auto`: o200k_base where its file is on this machine, else `estimate`
            (four characters a token).
        max_message_bytes: Size limit of one message with its metadata and payload.
        model_timeout: Seconds a model call may take.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    supabase_url: str | None = None
    supabase_key: SecretStr | None = None
    supabase_user_token: SecretStr | None = None
    redis_timeout: Seconds = 0.25
    database_pool_size: Count = 10
    database_timeout: Seconds = 5.0
    database_transaction_pooler: bool = False
    openai_api_key: SecretStr | None = _usual("openai_api_key", "OPENAI_API_KEY")
    google_api_key: SecretStr | None = _usual("google_api_key", "GOOGLE_API_KEY", "GEMINI_API_KEY")
    openai_base_url: str | None = _usual("openai_base_url", "OPENAI_BASE_URL")
    google_base_url: str | None = None
    user_id: str | None = None
    require_user: bool = False
    tokenizer: TokenizerName = "auto"
    max_message_bytes: Count = 262_144
    model_timeout: Seconds = 60.0

    @model_validator(mode="after")
    def _one_durable_store(self) -> Config:
        if self.database_url is not None and self.supabase_url is not None:
            raise ValueError("database_url and supabase_url both name the durable store; keep one")
        if self.supabase_url is not None and self.supabase_key is None:
            raise ValueError("supabase_url needs supabase_key")
        return self

    @model_validator(mode="before")
    @classmethod
    def _user_of_token(cls, given: Any) -> Any:
        token = given.get("supabase_user_token")
        if not token:
            return given
        subject = _subject(token.get_secret_value() if isinstance(token, SecretStr) else str(token))
        if given.get("user_id") not in {None, subject}:
            raise ValueError("user_id is another one than supabase_user_token was made out to; leave it out")
        return {**given, "user_id": subject}


class BufferConfig(Config):
    """Settings of `ConversationBufferMemory`.

    Attributes:
        window_size: Turns, tokens or seconds, as `window_type` says. A turn begins at each user message.
        ttl_seconds: Life of the hot copy. The durable messages stay.
        retention_seconds: Life of the durable messages, counted from their `created_at`. Default: for ever.
        max_total_tokens: Limit of the rendered context, whatever the window. Default: none.
    """

    window_size: Count = 10
    window_type: WindowType = "turns"
    ttl_seconds: Seconds = 3600
    retention_seconds: Seconds | None = None
    max_total_tokens: Count | None = None


class SummaryConfig(Config):
    """Settings of `ConversationSummaryMemory`.

    Attributes:
        buffer_window_size: Turns kept verbatim at the end.
        summary_context_weight: Share of the budget for the summary. What one side does not need the other gets.
        max_total_tokens: Limit of the rendered context.
        summarization_model: A model of OpenAI's or Gemini's, or `offline`. Default: the small model of the provider
            a key is there for, else `offline`.
        summary_trigger_tokens: Summarise when this many tokens have left the buffer. Also the size of the ranges
            that are summarised at a time.
        summary_ratio: Length of a summary relative to what it covers.
        ttl_seconds, retention_seconds: As in `BufferConfig`. A summary goes with the last of its messages.
    """

    buffer_window_size: Count = 10
    summary_context_weight: Share = 0.3
    max_total_tokens: Count = 4000
    summarization_model: str | None = None
    summary_trigger_tokens: Count = 2000
    summary_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.3
    ttl_seconds: Seconds = 3600
    retention_seconds: Seconds | None = None


class VectorConfig(Config):
    """Settings of `VectorDatabaseMemory`.

    Attributes:
        embedding_model: A model of OpenAI's or Gemini's, `all-MiniLM-L6-v2`, or `offline`. Default: the provider's
            usual one where there is a key (`text-embedding-3-small`, `gemini-embedding-001`), else `offline`.
        embedding_dimensions: Length of the vectors, for models that offer several.
        similarity_threshold: A cosine below it counts as none. What shares words with the question is found all the
            same. Default: nothing is left out.
        max_results: Texts in a result or a context, where the request names neither results nor tokens.
        max_total_tokens: Limit of the rendered context. Default: none.
        passage_tokens: A document is split into passages of at most so many tokens; a message only where the embedder
            cannot read it whole.
        recency_weight, importance_weight: How much new, and important, texts are lifted; by nothing unless asked for.
            The words and the meaning of a text count 0.8 each.
        recency_half_life_days: After so many days a text's recency has halved.
    """

    embedding_model: str | None = None
    embedding_dimensions: Count | None = None
    similarity_threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    max_results: Count = 5
    max_total_tokens: Count | None = None
    passage_tokens: Annotated[int, Field(ge=16, le=8192)] = 512
    recency_weight: Share = 0.0
    importance_weight: Share = 0.0
    recency_half_life_days: Annotated[float, Field(gt=0)] = 30.0


class WorkingConfig(Config):
    """Settings of `WorkingMemory`. All engines that share a namespace should have the same ones.

    Attributes:
        ttl_seconds: Life of an item that brings no `ttl_seconds` of its own, from its last writing on.
        capacity_limit: Items a namespace holds at most.
        eviction_policy: What goes first where a namespace is full. `importance`: what is worth least, by importance,
            use and age. `lru`: what was used longest ago. `lfu`: what was used least often. `fifo`: what was stored
            first. `ttl`: what ends first.
        importance_half_life_seconds: For `importance`, and for what a context shows: in so many seconds without use the
            worth of an item halves.
        enable_reasoning_chain: Whether items may have parents and contexts begin with the active path.
        max_total_tokens: Limit of the rendered context. Default: none.
    """

    ttl_seconds: Annotated[float, Field(gt=0, le=MAX_TTL)] = 1800
    capacity_limit: Count = 100
    eviction_policy: EvictionPolicy = "importance"
    importance_half_life_seconds: Annotated[float, Field(ge=0.001, le=MAX_TTL)] = 600
    enable_reasoning_chain: bool = True
    max_total_tokens: Count | None = None


class KeyValueConfig(Config):
    """Settings of `KeyValueStoreMemory`.

    Attributes:
        namespace: Where keys belong when a call names no other one.
        serialize_json: Values are JSON, and what `codec` knows besides; otherwise bytes come back as they went in.
        ttl_seconds: Life of an entry, unless it is stored with another one. Default: for ever.
        hot_ttl_seconds: Life of a copy in Redis. The durable entry stays.
        max_value_bytes: Size limit of a value, serialised.
        compression_threshold: Bytes from which on values are compressed (zstd), where that makes them smaller.
            Default: never.
        encryption_keys: Encrypt values (AES-256-GCM); each 32 random bytes as base64 (`openssl rand -base64 32`). The
            first one encrypts, all of them decrypt: to change keys put the new one first. Keys and times stay legible.
        sync_seconds: So often at most, and only while it is in use, the copies in Redis are compared with the database.
        max_total_tokens: Limit of the rendered context. Default: none.
    """

    namespace: Annotated[str, Field(min_length=1, max_length=256)] = "default"
    serialize_json: bool = True
    ttl_seconds: Seconds | None = None
    hot_ttl_seconds: Seconds = 3600
    max_value_bytes: Count = 1_048_576
    compression_threshold: Count | None = None
    encryption_keys: tuple[SecretStr, ...] = ()
    sync_seconds: Seconds = 300
    max_total_tokens: Count | None = None


class EntityConfig(Config):
    """Settings of `EntityMemory`."""

    entity_types: tuple[str, ...] = ("person", "organization", "location", "concept")
    relationship_tracking: bool = True


class ContextPriority(BaseModel):
    """Each source's share of the orchestrator's budget."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    recent_conversation: Share = 0.4
    summary: Share = 0.2
    entities: Share = 0.15
    vector_search: Share = 0.15
    working_memory: Share = 0.1


class OrchestratorConfig(Config):
    """Settings of `MemoryOrchestrator`; those of each engine are given beside them."""

    enabled_memories: tuple[MemoryType, ...] = tuple(MemoryType)
    max_total_tokens: Count = 4000
    parallel_queries: bool = True
    cross_memory_links: bool = True
    default_context_priority: ContextPriority = ContextPriority()


_CONFIGS = (BufferConfig, SummaryConfig, VectorConfig, WorkingConfig, KeyValueConfig, EntityConfig, OrchestratorConfig)


@cache
def known_keys() -> frozenset[str]:
    """Every key that some engine knows."""
    return frozenset(key for config in _CONFIGS for key in config.model_fields)


def load(cls: type[ConfigT], config: Mapping[str, Any] | Config | None) -> ConfigT:
    """The typed config of an engine from what its constructor was given.

    Raises:
        ConfigError: Names the key and the fix. It never holds the value, which may be a secret.
    """
    if isinstance(config, cls):
        return config
    if config is None:
        config = {}
    if not isinstance(config, Mapping):
        raise ConfigError(f"config must be a dict or a {cls.__name__}, not {type(config).__name__}")
    for key in config:
        if key not in known_keys():
            raise ConfigError(f"unknown setting {key!r}; {nearest(str(key), sorted(known_keys()))}")
    _warn_of_unknown_variables()
    given = {key: value for key, value in config.items() if key in cls.model_fields}
    if given.get("database_url") is not None:  # what is given outright wins over the other one from the environment
        given.setdefault("supabase_url", None)
    elif given.get("supabase_url") is not None:
        given.setdefault("database_url", None)
    try:
        return cls(**given)
    except ValidationError as error:
        problems = "; ".join(_problem(detail["loc"], detail["msg"]) for detail in error.errors(include_input=False))
        raise ConfigError(problems) from None
    except SettingsError as error:
        raise ConfigError(f"an environment variable {PREFIX}* cannot be read: {error}") from None


def names_postgres(url: SecretStr) -> bool:
    """Whether a `database_url` is one of PostgreSQL's."""
    return url.get_secret_value().startswith(("postgresql://", "postgres://"))


def _subject(token: str) -> str:
    """Whom a token names. Whether it is genuine the server sees."""
    try:
        body = token.split(".")[1]
        subject = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))["sub"]
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        subject = None
    if not isinstance(subject, str) or not subject:
        raise ValueError("supabase_user_token is no access token of a user: it names no subject")
    return subject


def _problem(location: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part) for part in location)
    return f"{where}: {message}" if where else message.removeprefix("Value error, ")


def _warn_of_unknown_variables() -> None:
    for variable in os.environ:
        key = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and not key.startswith("test_") and key not in known_keys():
            logger.warning("%s sets nothing: %s", variable, nearest(key, sorted(known_keys())))
