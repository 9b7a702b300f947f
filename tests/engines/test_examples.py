"""The interface that was asked for, as it was written: embedded, and with Gemini's protocol on loopback."""

import json
import re

import pytest

from llm_memory_plugins import ContextRequest, ConversationBufferMemory, ConversationSummaryMemory, MemoryType
from llm_memory_plugins.testing.model_server import ModelServer, Reply


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for variable in ("OPENAI_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY", "LLM_MEMORY_DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


async def test_the_buffer_example(own_folder):
    buffer_memory = ConversationBufferMemory({"window_size": 10, "window_type": "turns", "ttl_seconds": 3600})
    stats = await buffer_memory.get_session_stats("session_123")
    assert stats["message_count"] == 0
    assert [p.name for p in own_folder.rglob("*.sqlite3")] == ["memory.sqlite3"], "the default file is the user's own"
    await buffer_memory.close()


async def summary_example(settings):
    memory = ConversationSummaryMemory(
        {**settings, "buffer_window_size": 10, "summary_context_weight": 0.3, "max_total_tokens": 4000}
    )
    await memory.initialize()
    await memory.store(
        {
            "session_id": "chat_123",
            "user_id": "user_456",
            "role": "user",
            "content": "Hello, I need help with Python async programming",
        }
    )
    context = await memory.get_context({"session_id": "chat_123"})
    shown = context.get("summary", ""), [msg["content"] for msg in context.get("messages", [])]
    health = await memory.health_check()
    assert shown == ("", ["Hello, I need help with Python async programming"])
    assert health["status"] == "healthy"
    assert re.match(r"\d{4}-\d\d-\d\dT", health["timestamp"])
    return memory


async def test_the_summary_example_embedded():
    memory = await summary_example({})
    await memory.close()


async def test_the_summary_example_with_a_gemini_server():
    def notes(request):
        lines = re.findall(r"^(\d+)\. \([-\d]+\) (.*)$", request.content, re.MULTILINE)
        return json.dumps({"notes": [{"text": t[:200], "sources": [int(n)], "importance": 0.5} for n, t in lines]})

    def answer(request):
        schema = json.dumps(request.body)
        return notes(request) if "importance" in schema else "{}"

    with ModelServer(Reply(answer)) as server:
        memory = await summary_example({"google_api_key": "example-key", "google_base_url": server.url})
        talk = [
            {"session_id": "chat_123", "user_id": "user_456", "role": role, "content": f"{role} asks about asyncio {n}"}
            for n in range(15)
            for role in ("user", "assistant")
        ]
        await memory.store(talk)
        assert await memory.compact("chat_123") == 1
        context = await memory.get_context({"session_id": "chat_123"})
        assert "asyncio 0" in context["summary"]
        assert memory.usage.calls == 1
        assert memory.usage.input_tokens > 0
        assert (await memory.health_check()).detail["summariser"].startswith("gemini/")
        await memory.close()


async def test_one_flat_dict_serves_every_engine():
    everything = {
        "enabled_memories": [MemoryType.CONVERSATION_SUMMARY, MemoryType.VECTOR_DATABASE],
        "window_size": 10,
        "window_type": "turns",
        "ttl_seconds": 3600,
        "similarity_threshold": 0.7,
        "max_results": 5,
        "embedding_model": "text-embedding-3-small",
        "summarization_model": "offline",
        "parallel_queries": True,
        "cross_memory_links": True,
        "default_context_priority": {"recent_conversation": 0.4, "summary": 0.2},
        "capacity_limit": 100,
        "eviction_policy": "importance",
        "enable_reasoning_chain": True,
        "namespace": "user_context",
        "serialize_json": True,
        "entity_types": ["person"],
        "relationship_tracking": True,
    }
    for engine in (ConversationBufferMemory, ConversationSummaryMemory):
        async with engine(everything) as memory:
            request = ContextRequest(session_id="s", user_id="u", query="anything", max_total_tokens=4000)
            assert (await memory.get_context(request)).tokens == 0
