"""Embedders that are down, changed, smaller, or handed in."""

import asyncio
import logging

import pytest
from tests.engines.watched import FACTS, Watched

from llm_memory_plugins import VectorDatabaseMemory
from llm_memory_plugins.errors import ConfigError, ModelError


async def test_without_the_embedder_texts_are_stored_and_found_by_words_and_get_vectors_later(memory, embedder, caplog):
    embedder.down = True
    with caplog.at_level(logging.WARNING):
        await memory.store(FACTS)
    assert "without vectors" in caplog.text
    results = await memory.search("the cello player")
    assert results[0].content == FACTS[3]
    assert results[0].similarity is None
    assert "embedder" in results.errors
    context = await memory.get_context({"query": "cello", "max_tokens": 100})
    assert "down" in context.errors["embedder"]
    assert (await memory.stats()).pending == len(FACTS)
    health = await memory.health_check()
    assert "down" in health.detail["embedder"]
    embedder.down = False
    await memory._embedding.catch_up()
    await memory.drain()  # it also tries by itself, after some seconds
    assert (await memory.stats()).pending == 0
    assert (await memory.search("Who is a musician?"))[0].similarity > 0.3


async def test_what_waits_for_a_vector_is_embedded_by_the_next_engine(config, embedder):
    embedder.down = True
    async with VectorDatabaseMemory(config, embedder=embedder) as memory:
        await memory.store(FACTS)
    embedder.down = False
    async with VectorDatabaseMemory(config, embedder=embedder) as memory:
        await memory.drain()
        assert (await memory.stats()).pending == 0


async def test_vectors_of_another_embedder_are_an_error_that_says_what_to_do(config, memory):
    await memory.store(FACTS)
    async with VectorDatabaseMemory(config, embedder=Watched(name="other/model")) as other:
        with pytest.raises(ConfigError, match=r"wordllama.*other/model.*reindex"):
            await other.search("cats")


async def test_reindexing_goes_on_while_questions_are_asked(config, memory, embedder):
    await memory.store([f"{fact} It is remark {n}." for n in range(200) for fact in FACTS])
    new = Watched(name="other/model")
    searches = 0

    async def ask():
        nonlocal searches
        while True:
            results = await memory.search("Who plays the cello?")
            assert "cello" in results[0].content
            assert results[0].similarity is not None
            searches += 1

    asking = asyncio.create_task(ask())
    assert await memory.reindex(new) == 1000
    asking.cancel()
    assert searches > 0
    assert memory.embedder.identity == "other/model/256"
    assert (await memory.stats()).embedders == {"other/model/256": 1000}
    assert await memory.reindex() == 0
    async with VectorDatabaseMemory(config, embedder=embedder) as old:
        with pytest.raises(ConfigError, match="other/model"):
            await old.search("cello")


async def test_reindexing_that_broke_off_goes_on_where_it_was(memory):
    await memory.store([f"entry {n}" for n in range(600)])
    new = Watched(name="other/model")
    ask = new._ask

    async def failing(texts, kind):
        if len(new.documents()) >= 256:
            raise ModelError("the embedder is down", retryable=True)
        return await ask(texts, kind)

    new._ask = failing
    with pytest.raises(ModelError):
        await memory.reindex(new)
    assert (await memory.search("entry 599"))[0].similarity is not None
    new._ask = ask
    assert await memory.reindex() == 600 - 256


async def test_an_embedder_with_a_smaller_window_gets_the_pieces(memory):
    await memory.store({"content": "One sentence about boats. " * 40, "role": "user", "session_id": "s"})
    assert (await memory.stats()).parts == 1
    await memory.reindex(Watched(name="other/model", max_tokens=50))
    assert (await memory.search("boats"))[0].similarity > 0.5


async def test_the_window_of_the_embedder_splits_messages_too(config):
    async with VectorDatabaseMemory(config, embedder=Watched(max_tokens=30)) as memory:
        text = " ".join(f"Sentence {n} tells something of the harbour." for n in range(30))
        stored = await memory.store({"content": text, "role": "user", "session_id": "s"})
        assert (await memory.stats()).parts > 5
        assert (await memory.search("Sentence 17"))[0].content == stored.content


class Handed:
    """What LangChain's `Embeddings` looks like."""

    async def aembed_documents(self, texts):
        return [[float(len(text)), 1.0, float("cat" in text)] for text in texts]

    async def aembed_query(self, text):
        return (await self.aembed_documents([text]))[0]

    def embed_documents(self, texts):
        raise AssertionError

    embed_query = embed_documents


async def test_an_embedding_model_of_a_framework_can_be_handed_in(config):
    async with VectorDatabaseMemory(config, embedder=Handed()) as memory:
        await memory.store(FACTS)
        assert (await memory.search("cat"))[0].similarity is not None
        assert memory.embedder.dimensions == 3
