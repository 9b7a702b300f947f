"""The embedders behind HTTP, through their real SDKs: each behaviour once, for either protocol."""

import asyncio
import json
import logging
import time
import traceback

import numpy as np
import pytest
from pydantic import SecretStr

from llm_memory_plugins.errors import ConfigError, InvalidInput, MissingExtra, ModelError
from llm_memory_plugins.providers.embedders.gemini import GeminiEmbedder
from llm_memory_plugins.providers.embedders.openai import OpenAIEmbedder
from llm_memory_plugins.testing.model_server import INPUT_TOKENS, ModelServer, Reply, counted

CANARY = "sk-canary-5f2d9c71"
PRIVATE = "my cat is called Borodin"
TEXTS = [PRIVATE, "the second", "and the third"]


@pytest.fixture
def server():
    with ModelServer() as running:
        yield running


@pytest.fixture(params=["openai", "gemini"])
def build(request, server):
    """A function that builds the provider's embedder of 8 dimensions against the server."""

    def make(**options):
        options = {"dimensions": 8, "api_key": SecretStr(CANARY), **options}
        if request.param == "openai":
            return OpenAIEmbedder(**{"base_url": server.openai_url, **options})
        return GeminiEmbedder(**{"base_url": server.url, **options})

    return make


@pytest.fixture
async def embedder(build):
    made = build(timeout=5.0)
    yield made
    await made.close()


def ask(embedder, texts=TEXTS):
    return embedder.embed(texts, kind="document")


def rows(count, width=8, **odd):
    vectors = [[1.0 + i] * width for i in range(count)]
    if "value" in odd:
        vectors[-1][-1] = odd["value"]
    return Reply(vectors=vectors)


async def test_vectors_come_at_unit_length_with_what_they_cost(embedder, server):
    vectors, usage = await ask(embedder)
    expected = np.array([counted(text, 8) for text in server.requests[0].texts], dtype=np.float32)
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert (usage.input_tokens, usage.output_tokens, usage.calls) == (INPUT_TOKENS, 0, 1)
    assert server.requests[0].dimensions == 8
    assert CANARY in str(server.requests[0].headers)


async def test_nothing_and_nonsense_make_no_request(embedder, server):
    await embedder.embed([], kind="query")
    for texts in ([""], ["x" * 200_000], "a text", [None]):
        with pytest.raises(InvalidInput):
            await ask(embedder, texts)
    assert server.requests == []


@pytest.mark.parametrize(
    ("reply", "retryable", "retry_after"),
    [
        (Reply(status=429, headers={"retry-after": "17"}), True, 17.0),
        (Reply(status=429), True, None),
        (Reply(status=500), True, None),
        (Reply(status=503, headers={"retry-after": "2"}), True, 2.0),
        (Reply(status=400), False, None),
        (Reply(status=401), False, None),
        (Reply(status=403), False, None),
        (Reply(status=404), False, None),
        (Reply(cut=True), True, None),
        (rows(2), True, None),
        (rows(4), True, None),
        (rows(0), True, None),
        (rows(3, width=7), False, None),
        (rows(3, width=0), False, None),
        (rows(3, value=float("nan")), True, None),
        (rows(3, value=float("inf")), True, None),
        (Reply(vectors=[[1.0] * 8, [0.0] * 8, [1.0] * 8]), True, None),
        (Reply(vectors=[[1.0] * 8, [1.0] * 7, [1.0] * 8]), True, None),
        (Reply(raw="<html>gateway</html>"), True, None),
        (Reply(raw="[]"), True, None),
        (Reply(raw="[1]"), True, None),
        (Reply(raw="null"), True, None),
        (Reply(raw="7"), True, None),
        (Reply(raw='"text"'), True, None),
        (Reply(raw=""), True, None),
        (Reply(raw=b"\xff\xfe"), True, None),
        (Reply(raw='{"data": null, "embeddings": null}'), True, None),
        (Reply(raw='{"data": [{}], "embeddings": [{}]}'), True, None),
        (Reply(raw='{"data": 1, "embeddings": 1}'), True, None),
        (Reply(raw='{"data": [null], "embeddings": [null]}'), True, None),
        (Reply(raw='{"data": [{"embedding": {}}], "embeddings": [{"values": {}}]}'), True, None),
        (Reply(raw='{"data": [{"embedding": ["a"]}], "embeddings": [{"values": ["a"]}]}'), True, None),
    ],
    ids=lambda value: None if isinstance(value, Reply) else str(value),
)
async def test_every_failure_is_a_model_error_and_nothing_is_returned(embedder, server, reply, retryable, retry_after):
    server.answers.append(reply)
    with pytest.raises(ModelError) as caught:
        await ask(embedder)
    assert (caught.value.retryable, caught.value.retry_after) == (retryable, retry_after)
    assert len(server.requests) == 1, "retries are the caller's"
    vectors, _ = await ask(embedder)
    assert vectors.shape == (3, 8), "the client works on"


async def test_an_unknown_model_names_the_setting(embedder, server):
    server.answers.append(Reply(status=404))
    with pytest.raises(ModelError, match="embedding_model"):
        await ask(embedder)


async def test_many_texts_go_in_several_requests_of_which_few_at_a_time(build, server):
    embedder = build(concurrency=2)
    server.default = Reply(delay=0.05)
    texts = [f"text {i} " + "x" * 2000 for i in range(450)]
    vectors, usage = await ask(embedder, texts)
    await embedder.close()
    expected = np.array([counted(text, 8) for text in texts], dtype=np.float32)
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert usage.calls == len(server.requests) >= 4
    assert usage.input_tokens == usage.calls * INPUT_TOKENS
    limit = 100 if isinstance(embedder, GeminiEmbedder) else 2048
    assert all(len(request.texts) <= limit for request in server.requests)
    if limit == 2048:
        assert all(sum(map(len, request.texts)) <= 300_000 for request in server.requests)


@pytest.mark.parametrize(
    ("second", "retryable"), [(Reply(status=500), True), (rows(3), True), (Reply(status=401), False)]
)
async def test_half_a_batch_is_nothing(build, server, second, retryable):
    embedder = build(concurrency=1)
    server.answers.extend([Reply(), second])
    with pytest.raises(ModelError) as caught:
        await ask(embedder, ["x" * 4000] * 450)
    assert caught.value.retryable is retryable
    assert len(server.requests) == 2, "the rest is given up"
    await embedder.close()


async def test_of_several_failures_the_one_to_act_on_is_told(build, server):
    embedder = build(concurrency=2)
    server.answers.extend([Reply(status=401, delay=0.2), Reply(status=401, delay=0.2)])
    server.default = Reply(delay=5)
    with pytest.raises(ModelError, match="refused the key"):
        await ask(embedder, ["x" * 4000] * 450)
    await embedder.close()


async def test_a_slow_answer_ends_at_the_deadline(build, server):
    server.default = Reply(delay=10)
    embedder = build(timeout=0.2)
    begun = time.perf_counter()
    with pytest.raises(ModelError, match="did not answer") as caught:
        await ask(embedder)
    assert caught.value.retryable
    assert time.perf_counter() - begun < 5
    await embedder.close()


async def test_nobody_there_is_retryable(build):
    embedder = build(base_url="http://127.0.0.1:9")
    with pytest.raises(ModelError) as caught:
        await ask(embedder)
    assert caught.value.retryable
    await embedder.close()


async def test_a_cancelled_call_leaves_the_client_usable(embedder, server):
    server.answers.append(Reply(delay=10))
    task = asyncio.create_task(ask(embedder))
    await asyncio.to_thread(server.arrived.acquire)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await ask(embedder))[0].shape == (3, 8)


async def test_ping_costs_nothing_and_use_after_close_fails(embedder, server):
    await embedder.open()
    await embedder.ping()
    assert [request.method for request in server.requests] == ["GET"]
    await embedder.close()
    await embedder.close()
    with pytest.raises(ModelError):
        await ask(embedder)


async def test_neither_key_nor_text_appears_anywhere(embedder, server, caplog):
    caplog.set_level(logging.DEBUG)
    echo = json.dumps({"error": {"message": f"{CANARY} {PRIVATE}", "status": "X", "code": PRIVATE}})
    for reply in (Reply(status=400, raw=echo), Reply(raw=echo), rows(2), Reply(cut=True)):
        server.answers.append(reply)
        with pytest.raises(ModelError) as caught:
            await ask(embedder)
        assert caught.value.__cause__ is caught.value.__context__ is None
        told = "".join(traceback.format_exception(caught.value))
        assert CANARY not in told
        assert "Borodin" not in told
    told = [repr(embedder), str(vars(embedder)), *(record.getMessage() for record in caplog.records)]
    assert not [text for text in told if CANARY in text]


async def test_dimensions_that_nobody_stated_are_learned_once(build, server):
    embedder = build(dimensions=None, model="some-embedding")
    with pytest.raises(ModelError, match="open") as caught:
        _ = embedder.identity
    assert caught.value.retryable
    server.answers.append(Reply(status=500))
    with pytest.raises(ModelError):
        await embedder.open()
    server.default = Reply(vectors=[[1.0] * 5])
    await asyncio.gather(*(embedder.open() for _ in range(5)))
    assert len(server.requests) == 2
    assert embedder.dimensions == 5
    assert embedder.identity.endswith("/some-embedding/5")
    server.default = Reply(vectors=[[1.0] * 6])
    with pytest.raises(ModelError, match="6 dimensions, not 5"):
        await ask(embedder, ["x"])
    await embedder.close()


async def test_the_request_of_openai(server):
    embedder = OpenAIEmbedder(api_key=SecretStr(CANARY), base_url=server.openai_url)
    assert embedder.identity == "openai/text-embedding-3-small/1536"
    vectors, _ = await embedder.embed(["hello"], kind="query")
    await embedder.close()
    (request,) = server.requests
    assert vectors.shape == (1, 1536)
    assert request.path == "/v1/embeddings"
    assert request.body == {"model": "text-embedding-3-small", "input": ["hello"], "encoding_format": "base64"}


def openai_rows(*data):
    return Reply(raw=json.dumps({"data": list(data)}))


async def test_other_servers_send_plain_numbers_any_order_and_no_usage(server):
    embedder = OpenAIEmbedder(api_key=SecretStr(CANARY), base_url=server.openai_url, model="local", dimensions=2)
    one, two = {"embedding": [0.0, 2.0], "index": 1}, {"embedding": [3.0, 0.0], "index": 0}
    server.answers.append(openai_rows(one, two))
    vectors, usage = await embedder.embed(["a", "b"], kind="document")
    assert vectors.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert (usage.input_tokens, usage.calls) == (0, 1)
    server.answers.append(openai_rows({"embedding": [0.0, 2.0]}, {"embedding": [3.0, 0.0]}))
    vectors, _ = await embedder.embed(["a", "b"], kind="document")
    assert vectors.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    for data in ([one, one], [one, {"embedding": [1.0, 1.0]}], [{"embedding": "AAA"}], [{"embedding": "ä"}]):
        server.answers.append(openai_rows(*data))
        with pytest.raises(ModelError) as caught:
            await embedder.embed(["a", "b"], kind="document")
        assert caught.value.retryable
    await embedder.close()


async def test_a_text_as_long_as_openais_window_is_sent_and_a_longer_one_is_not(server):
    embedder = OpenAIEmbedder(api_key=SecretStr(CANARY), base_url=server.openai_url)
    await embedder.embed([" word" * 8191], kind="document")
    with pytest.raises(InvalidInput, match="8191"):
        await embedder.embed([" word" * 9000], kind="document")
    await embedder.close()


@pytest.mark.parametrize(
    ("model", "kind", "task", "text"),
    [
        (None, "document", "RETRIEVAL_DOCUMENT", "hello"),
        ("models/gemini-embedding-001", "query", "RETRIEVAL_QUERY", "hello"),
        ("gemini-embedding-2", "document", None, "title: none | text: hello"),
        ("gemini-embedding-2", "query", None, "task: search result | query: hello"),
    ],
)
async def test_the_request_of_gemini(server, model, kind, task, text):
    embedder = GeminiEmbedder(api_key=SecretStr(CANARY), base_url=server.url, model=model, dimensions=768)
    name = (model or "gemini-embedding-001").removeprefix("models/")
    assert embedder.identity == f"gemini/{name}/768"
    await embedder.embed(["hello", "you"], kind=kind)
    await embedder.close()
    (request,) = server.requests
    assert request.path.endswith(f"/models/{name}:batchEmbedContents")
    first, second = request.body["requests"]
    assert (first.get("taskType"), first["outputDimensionality"], first["model"]) == (task, 768, f"models/{name}")
    assert request.texts[0] == text
    assert second["content"]["parts"][0]["text"].endswith("you")


def test_what_cannot_be_built_says_what_to_do(build, monkeypatch):
    with pytest.raises(ConfigError, match="api_key"):
        build(api_key=SecretStr(" "))
    with pytest.raises(ConfigError, match="dimensions"):
        build(dimensions=0)
    import sys

    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(MissingExtra, match=r"pip install llm-memory-plugins"):
        build()
