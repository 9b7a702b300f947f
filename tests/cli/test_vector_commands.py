"""Commands for the vector memory."""

import asyncio

import psycopg
import pytest

from llm_memory_plugins import VectorDatabaseMemory, cli

INDEXES = "select indexname from pg_indexes where schemaname = 'llm_memory' and indexname like '%hnsw%'"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def call(*arguments):
    with pytest.raises(SystemExit) as exit_:
        cli.main(list(arguments))
    return exit_.value.code


class Letters:
    """Counts letters; as LangChain's embedding models look."""

    async def aembed_documents(self, texts):
        return [[text.count(letter) + 1.0 for letter in "etaoin"] for text in texts]

    async def aembed_query(self, text):
        return (await self.aembed_documents([text]))[0]

    def embed_documents(self, texts):
        raise AssertionError("it is not to be called on the event loop")

    embed_query = embed_documents


def test_reindex(tmp_path, capsys):
    url = f"sqlite:///{tmp_path}/m.db"

    async def stored():
        async with VectorDatabaseMemory({"database_url": url}, embedder=Letters()) as memory:
            await memory.store([{"content": f"note {n}", "user_id": f"u{n % 2}"} for n in range(10)])

    async def found():
        async with VectorDatabaseMemory({"database_url": url}) as memory:
            return list((await memory.stats()).embedders.values()), len(await memory.search("note", user_id="u0"))

    asyncio.run(stored())
    assert call("--database", url, "reindex", "--user", "u0") == 0
    assert "vectors made: 5, by wordllama/" in capsys.readouterr().out
    assert call("--database", url, "reindex") == 0
    assert "vectors made: 5" in capsys.readouterr().out
    assert asyncio.run(found()) == ([10], 5)


@pytest.mark.slow
def test_index(database_url, capsys):
    def indexes():
        with psycopg.connect(database_url) as connection:
            return [name for (name,) in connection.execute(INDEXES)]

    assert call("--database", database_url, "index", "256") == 0
    assert call("--database", database_url, "index", "3072") == 0
    assert sorted(indexes()) == ["embeddings_hnsw_256", "embeddings_hnsw_3072"]
    for dimensions in ("256", "3072"):
        assert call("--database", database_url, "index", dimensions, "--drop") == 0
    assert indexes() == []
    assert "dropped" in capsys.readouterr().out


def test_index_wants_postgresql(tmp_path, capsys):
    assert "needs no index" in call("--database", str(tmp_path / "m.db"), "index", "256")
    assert "reached" in call("--database", "postgresql://localhost:1/x", "index", "256")
    assert call("index", "5000") == 2
    assert "4000" in capsys.readouterr().err
