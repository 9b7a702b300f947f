"""Importing the package brings neither drivers nor frameworks, and its public names are all there."""

import json
import subprocess
import sys

import pytest

import llm_memory_plugins

HEAVY = {
    *("openai", "google", "tiktoken", "redis", "psycopg", "psycopg_pool", "pgvector", "supabase", "postgrest"),
    *("langchain", "langchain_core", "langchain_classic", "langchain_community", "langgraph", "llama_index"),
    *("aiosqlite", "apsw", "sqlalchemy", "numpy", "wordllama", "httpx", "httpx2", "requests", "typer", "rich"),
    *("matplotlib", "networkx", "starlette", "uvicorn"),
}


def loaded_after(code):
    """Top-level names of the modules that a fresh interpreter holds after `code`."""
    asked = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import llm_memory_plugins",
        "from llm_memory_plugins import *",
        "import llm_memory_plugins.config, llm_memory_plugins.tokens, llm_memory_plugins.boundary",
        "from llm_memory_plugins import ConversationSummaryMemory as M; "
        "M({'database_url': 'sqlite:///:memory:', 'tokenizer': 'estimate', 'summarization_model': 'offline'})",
    ],
)
def test_importing_brings_no_driver_and_no_framework(code):
    loaded = loaded_after(code)
    assert "llm_memory_plugins" in loaded
    assert loaded & HEAVY <= ({"numpy"} if "*" in code else set()), "only the vector memory's ranking is arrays"


@pytest.mark.slow
def test_the_bare_import_does_not_even_bring_the_engines():
    loaded = loaded_after("import llm_memory_plugins")
    assert loaded & {"pydantic", "pydantic_settings", "sqlite3", "snowballstemmer", "opentelemetry"} == set()


def test_every_public_name_resolves():
    names = {}
    exec("from llm_memory_plugins import *", names)
    for name in llm_memory_plugins.__all__:
        assert names[name] is getattr(llm_memory_plugins, name)
        assert name in dir(llm_memory_plugins)
    assert {"ConversationBufferMemory", "ConversationSummaryMemory", "ContextRequest", "MemoryType"} <= set(names)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'llm_memory_plugins' has no attribute 'Nothing'"):
        llm_memory_plugins.Nothing  # noqa: B018
    assert not hasattr(llm_memory_plugins, "Nothing")
