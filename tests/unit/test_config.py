"""Settings: one flat key space for all engines, the environment behind it, and no secret in any text."""

import logging
import pickle

import pytest

from llm_memory_plugins.config import (
    BufferConfig,
    Config,
    EntityConfig,
    KeyValueConfig,
    OrchestratorConfig,
    SummaryConfig,
    VectorConfig,
    WorkingConfig,
    known_keys,
    load,
)
from llm_memory_plugins.errors import ConfigError
from llm_memory_plugins.types import MemoryType

ALL = [BufferConfig, SummaryConfig, VectorConfig, WorkingConfig, KeyValueConfig, EntityConfig, OrchestratorConfig]
ORIGINAL = {  # every key of the examples this package was asked for, in one dict
    "redis_url": "redis://localhost:6379",
    "supabase_url": "https://example.supabase.co",
    "supabase_key": "supabase-secret",
    "openai_api_key": "openai-secret",
    "google_api_key": "google-secret",
    "window_size": 10,
    "window_type": "turns",
    "ttl_seconds": 3600,
    "buffer_window_size": 10,
    "summary_context_weight": 0.3,
    "max_total_tokens": 4000,
    "embedding_model": "text-embedding-3-small",
    "similarity_threshold": 0.7,
    "max_results": 5,
    "capacity_limit": 100,
    "eviction_policy": "importance",
    "enable_reasoning_chain": True,
    "namespace": "user_context",
    "serialize_json": True,
    "entity_types": ["person", "organization", "location", "concept"],
    "relationship_tracking": True,
    "enabled_memories": [MemoryType.CONVERSATION_SUMMARY, "vector_database", MemoryType.CONVERSATION_BUFFER],
    "summarization_model": "gemini-2.0-flash-exp",
    "parallel_queries": True,
    "cross_memory_links": True,
    "default_context_priority": {
        "recent_conversation": 0.4,
        "summary": 0.2,
        "entities": 0.15,
        "vector_search": 0.15,
        "working_memory": 0.1,
    },
}
SECRETS = ("supabase-secret", "openai-secret", "google-secret", "hunter2")

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.mark.parametrize("cls", ALL)
def test_one_dict_serves_every_engine(cls):
    config = load(cls, ORIGINAL)
    assert isinstance(config, cls)
    assert config.openai_api_key.get_secret_value() == "openai-secret"
    for key in set(ORIGINAL) & set(cls.model_fields):
        value = getattr(config, key)
        value = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        value = value.model_dump() if hasattr(value, "model_dump") else value
        assert (list(value) if isinstance(value, tuple) else value) == ORIGINAL[key]


def test_nothing_given_means_the_defaults():
    config = load(BufferConfig, None)
    assert (config.window_size, config.window_type, config.ttl_seconds, config.tokenizer) == (10, "turns", 3600, "auto")
    assert config.database_url is config.redis_url is config.openai_api_key is config.user_id is None
    assert load(BufferConfig, {}) == config
    assert load(BufferConfig, config) is config


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("windw_size", "window_size"),
        ("database", "database_url"),
        ("openai_key", "openai_api_key"),
        ("zzz", "known are"),
    ],
)
@pytest.mark.parametrize("cls", ALL)
def test_a_key_no_engine_knows_is_named_with_its_nearest(cls, key, near):
    with pytest.raises(ConfigError) as error:
        load(cls, {key: "hunter2"})
    assert repr(key) in str(error.value)
    assert near in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("config", [5, "sqlite://", ["window_size"], SummaryConfig(), {7: 1}])
def test_what_is_no_config_is_refused(config):
    with pytest.raises(ConfigError):
        load(BufferConfig, config)


@pytest.mark.parametrize(
    ("cls", "config", "key"),
    [
        *((BufferConfig, {"window_size": bad}, "window_size") for bad in (0, -1, 1.5, "many", None)),
        (BufferConfig, {"window_type": "days"}, "window_type"),
        (BufferConfig, {"ttl_seconds": 0}, "ttl_seconds"),
        (BufferConfig, {"ttl_seconds": "hunter2"}, "ttl_seconds"),
        (BufferConfig, {"tokenizer": "gpt2"}, "tokenizer"),
        (BufferConfig, {"openai_api_key": 5}, "openai_api_key"),
        (SummaryConfig, {"summary_context_weight": 1.1}, "summary_context_weight"),
        (SummaryConfig, {"summary_ratio": 0}, "summary_ratio"),
        (OrchestratorConfig, {"enabled_memories": ["hunter2"]}, "enabled_memories.0"),
        (OrchestratorConfig, {"default_context_priority": {"summry": 0.1}}, "default_context_priority.summry"),
        (Config, {"supabase_url": "https://x.example"}, "supabase_key"),
    ],
)
def test_a_bad_value_names_its_key_and_not_itself(cls, config, key):
    with pytest.raises(ConfigError, match=key) as error:
        load(cls, config)
    assert "hunter2" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_settings_come_from_the_environment(clean_environment):
    clean_environment.setenv("LLM_MEMORY_WINDOW_SIZE", "3")
    clean_environment.setenv("LLM_MEMORY_DATABASE_URL", "sqlite:///here.db")
    clean_environment.setenv("LLM_MEMORY_ENTITY_TYPES", '["person"]')
    clean_environment.setenv("LLM_MEMORY_USER_ID", "")
    config = load(BufferConfig, None)
    assert config.window_size == 3
    assert config.database_url.get_secret_value() == "sqlite:///here.db"
    assert config.user_id is None, "an empty variable sets nothing"
    assert load(EntityConfig, None).entity_types == ("person",)
    assert load(BufferConfig, {"window_size": 5}).window_size == 5, "what is given wins"
    clean_environment.setenv("LLM_MEMORY_WINDOW_SIZE", "4")
    assert load(BufferConfig, None).window_size == 4, "read whenever an engine is built"


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        *(("OPENAI_API_KEY", "openai_api_key"), ("LLM_MEMORY_OPENAI_API_KEY", "openai_api_key")),
        *(("GOOGLE_API_KEY", "google_api_key"), ("GEMINI_API_KEY", "google_api_key")),
        *(("LLM_MEMORY_GOOGLE_API_KEY", "google_api_key"), ("LLM_MEMORY_SUPABASE_KEY", "supabase_key")),
    ],
)
def test_keys_come_from_the_usual_variables(clean_environment, variable, key):
    clean_environment.setenv(variable, "from-environment")
    assert getattr(load(Config, None), key).get_secret_value() == "from-environment"
    assert getattr(load(Config, {key: "given"}), key).get_secret_value() == "given"


def test_base_urls_come_from_the_usual_variables(clean_environment):
    clean_environment.setenv("OPENAI_BASE_URL", "http://localhost:1")
    assert load(Config, None).openai_base_url == "http://localhost:1"
    assert load(Config, {"openai_base_url": "http://localhost:2"}).openai_base_url == "http://localhost:2"


@pytest.mark.parametrize("usual", ["OPENAI_API_KEY", "GOOGLE_API_KEY"])
def test_our_own_variable_wins_over_the_usual_one(clean_environment, usual):
    clean_environment.setenv(usual, "usual")
    clean_environment.setenv(f"LLM_MEMORY_{usual}", "ours")
    assert getattr(load(Config, None), usual.lower()).get_secret_value() == "ours"


def test_the_durable_store_is_one(clean_environment):
    supabase = {"supabase_url": "https://x.example", "supabase_key": "supabase-secret"}
    with pytest.raises(ConfigError, match="database_url and supabase_url both name the durable store"):
        load(Config, {"database_url": "sqlite:///a.db", **supabase})
    clean_environment.setenv("LLM_MEMORY_DATABASE_URL", "sqlite:///env.db")
    config = load(Config, supabase)
    assert (config.database_url, config.supabase_url) == (None, "https://x.example")
    clean_environment.setenv("LLM_MEMORY_SUPABASE_URL", "https://env.example")
    clean_environment.setenv("LLM_MEMORY_SUPABASE_KEY", "k")
    config = load(Config, {"database_url": "sqlite:///a.db"})
    assert (config.database_url.get_secret_value(), config.supabase_url) == ("sqlite:///a.db", None)
    with pytest.raises(ConfigError, match="keep one"):
        load(Config, None)


@pytest.mark.parametrize("cls", ALL)
def test_secrets_are_in_no_text(cls):
    urls = {"redis_url": "redis://:hunter2@localhost"}
    for config in (load(cls, ORIGINAL | urls), load(cls, {"database_url": "postgresql://u:hunter2@h/d"})):
        for text in (repr(config), str(config), config.model_dump_json(), str(config.model_dump()), f"{config!r:s}"):
            assert not [secret for secret in SECRETS if secret in text]
    assert load(cls, ORIGINAL).supabase_key.get_secret_value() == "supabase-secret"
    assert pickle.loads(pickle.dumps(load(cls, ORIGINAL))) == load(cls, ORIGINAL)


def test_a_contradiction_shows_no_secret(clean_environment):
    both = {
        "database_url": "postgresql://u:hunter2@h/d",
        "supabase_url": "https://x.example",
        "supabase_key": "hunter2",
    }
    with pytest.raises(ConfigError) as error:
        load(Config, both)
    assert "hunter2" not in str(error.value)
    clean_environment.setenv("LLM_MEMORY_ENTITY_TYPES", "hunter2")
    with pytest.raises(ConfigError, match="entity_types") as error:
        load(EntityConfig, None)
    assert "hunter2" not in str(error.value)
    clean_environment.setenv("LLM_MEMORY_WINDOW_SIZE", "hunter2")
    with pytest.raises(ConfigError, match="window_size") as error:
        load(BufferConfig, None)
    assert "hunter2" not in str(error.value)


def test_a_mistyped_variable_is_warned_of_without_its_value(clean_environment, caplog):
    for name in ("LLM_MEMORY_WINDW_SIZE", "LLM_MEMORY_TEST_REDIS_URL", "LLM_MEMORY_TTL_SECONDS", "LLM_MEMORYX"):
        clean_environment.setenv(name, "77")
    with caplog.at_level(logging.WARNING, "llm_memory_plugins"):
        load(BufferConfig, {})
    assert [r.getMessage() for r in caplog.records] == [
        "LLM_MEMORY_WINDW_SIZE sets nothing: did you mean 'window_size'?"
    ]


def test_a_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load(BufferConfig, {}).window_size = 3
    assert set(ORIGINAL) <= known_keys()


def test_a_config_built_by_hand_shows_no_value_either():
    with pytest.raises(ValueError, match="window_size") as error:
        BufferConfig(window_size="hunter2", openai_api_key=["hunter2"])
    assert "hunter2" not in str(error.value)
