"""Both providers through their real SDKs, over real HTTP: each behaviour once, for either protocol."""

import asyncio
import json
import logging
import time
import traceback
from datetime import UTC, datetime
from types import ModuleType

import pytest
from pydantic import BaseModel, SecretStr

from llm_memory_plugins.errors import ConfigError, ModelError
from llm_memory_plugins.providers.gemini import GeminiChatModel
from llm_memory_plugins.providers.openai import OpenAIChatModel
from llm_memory_plugins.providers.summariser import ModelSummariser
from llm_memory_plugins.testing.model_server import INPUT_TOKENS, OUTPUT_TOKENS, ModelServer, Reply
from llm_memory_plugins.types import SummaryLine

CANARY = "sk-canary-5f2d9c71"
PRIVATE = "my cat is called Borodin"


class Animal(BaseModel):
    name: str
    legs: int


GOOD = Reply('{"name": "cat", "legs": 4}')


@pytest.fixture
def server():
    with ModelServer() as running:
        yield running


@pytest.fixture(params=["openai", "gemini"])
def build(request, server):
    """A function that builds the provider's model against the server."""

    def make(**options):
        if request.param == "openai":
            return OpenAIChatModel(api_key=SecretStr(CANARY), **{"base_url": server.openai_url, **options})
        return GeminiChatModel(api_key=SecretStr(CANARY), **{"base_url": server.url, **options})

    return make


@pytest.fixture
async def model(build):
    made = build(timeout=5.0)
    yield made
    await made.close()


def ask(model):
    return model.generate(instructions="Name an animal.", content=PRIVATE, answer=Animal, max_output_tokens=50)


async def test_answers_in_the_given_shape_and_counts_tokens(model, server):
    server.answers.append(GOOD)
    answer, usage = await ask(model)
    assert answer == Animal(name="cat", legs=4)
    assert (usage.input_tokens, usage.output_tokens, usage.calls) == (INPUT_TOKENS, OUTPUT_TOKENS, 1)
    (request,) = server.requests
    assert request.content == PRIVATE
    assert CANARY in str(request.headers)


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
        (Reply('{"name": "cat", "le', finish="length"), True, None),
        (Reply('{"name": "cat", "le'), True, None),
        (Reply("a cat"), True, None),
        (Reply('{"name": "cat"}'), True, None),
        (Reply(""), True, None),
        (Reply(finish="refusal"), False, None),
        (Reply(finish="nothing"), True, None),
        (Reply('{"name": "cat", "legs": 4}', cut=True), True, None),
        (Reply(raw="<html>gateway</html>"), True, None),
        (Reply(raw="[]"), True, None),
        (Reply(raw=""), True, None),
    ],
    ids=lambda value: None if isinstance(value, Reply) else str(value),
)
async def test_every_failure_is_a_model_error_that_says_whether_to_try_again(
    model, server, reply, retryable, retry_after
):
    server.answers.extend([reply, GOOD])
    with pytest.raises(ModelError) as caught:
        await ask(model)
    assert caught.value.retryable is retryable
    assert caught.value.retry_after == retry_after
    assert len(server.requests) == 1, "retries are the caller's"
    answer, _ = await ask(model)
    assert answer.name == "cat", "the client works on"


async def test_unknown_model_names_the_setting(model, server):
    server.answers.append(Reply(status=404))
    with pytest.raises(ModelError, match="summarization_model"):
        await ask(model)


async def test_a_slow_answer_ends_at_the_deadline(build, server):
    server.default = Reply("x", delay=10)
    model = build(timeout=0.2)
    begun = time.perf_counter()
    with pytest.raises(ModelError, match="did not answer") as caught:
        await ask(model)
    assert caught.value.retryable
    assert time.perf_counter() - begun < 5
    await model.close()


async def test_nobody_there_is_retryable(build):
    model = build(base_url="http://127.0.0.1:9")
    with pytest.raises(ModelError) as caught:
        await ask(model)
    assert caught.value.retryable
    await model.close()


async def test_a_cancelled_call_leaves_the_client_usable(model, server):
    server.answers.append(Reply("x", delay=10))
    task = asyncio.create_task(ask(model))
    await asyncio.to_thread(server.arrived.acquire)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.answers.append(GOOD)
    assert (await ask(model))[0].legs == 4


async def test_twenty_calls_at_once(model, server):
    server.default = GOOD
    answers = await asyncio.gather(*(ask(model) for _ in range(20)))
    assert [a.name for a, _ in answers] == ["cat"] * 20


async def test_ping_and_use_after_close(model):
    await model.open()
    await model.ping()
    await model.close()
    with pytest.raises(ModelError):
        await ask(model)


@pytest.mark.parametrize(
    "reply",
    [
        GOOD,
        Reply(status=401, raw=f'{{"error": {{"message": "wrong key {CANARY}", "code": "{CANARY}"}}}}'),
        Reply(PRIVATE),
        Reply(raw=f"<html>{CANARY} {PRIVATE}</html>"),
        Reply(GOOD.content, cut=True),
    ],
)
async def test_the_key_and_the_prompt_appear_nowhere(model, server, caplog, reply):
    caplog.set_level(logging.DEBUG)
    server.answers.append(reply)
    told = [repr(model), str(vars(model)), str(vars(model._client))]
    (error,) = await asyncio.gather(ask(model), return_exceptions=True)
    if isinstance(error, BaseException):
        assert PRIVATE not in repr(error)
        told += [repr(error), repr(error.__cause__), repr(error.__context__)]
    told += [record.getMessage() for record in caplog.records]
    assert not [text for text in told if CANARY in text]


def texts(thing, seen):
    """Every text that can be reached from an object through attributes and containers."""
    if id(thing) in seen or isinstance(thing, ModuleType | type):
        return
    seen[id(thing)] = thing  # kept, so that no id is used twice
    if isinstance(thing, str | bytes):
        yield thing if isinstance(thing, str) else thing.decode("latin-1")
    elif isinstance(thing, dict):
        for key, value in list(thing.items()):
            yield from texts(key, seen)
            yield from texts(value, seen)
    elif isinstance(thing, list | tuple | set | frozenset):
        for item in list(thing):
            yield from texts(item, seen)
    elif not isinstance(thing, SecretStr):
        yield from texts(getattr(thing, "__dict__", None), seen)
        slots = [name for cls in type(thing).__mro__ for name in getattr(cls, "__slots__", ())]
        yield from (text for name in slots for text in texts(getattr(thing, name, None), seen))


async def test_no_attribute_holds_the_key_however_deep(model, server):
    server.answers.extend([GOOD, Reply(status=401), Reply("x", cut=True)])
    await asyncio.gather(ask(model), ask(model), ask(model), return_exceptions=True)
    await model.ping()
    found = list(texts(model, {}))
    assert any(server.url.removeprefix("http://").partition(":")[0] in text for text in found), "the walk gets deep"
    assert not [text for text in found if CANARY in text]


async def test_a_traceback_tells_neither_key_nor_prompt_nor_answer(model, server):
    echo = json.dumps({"error": {"message": f"{CANARY} {PRIVATE} {ask}", "status": "X", "code": f"{PRIVATE}"}})
    for reply in (Reply(status=400, raw=echo), Reply(raw=echo), Reply(json.dumps({"name": PRIVATE, "arms": CANARY}))):
        server.answers.append(reply)
        with pytest.raises(ModelError) as caught:
            await ask(model)
        assert caught.value.__cause__ is caught.value.__context__ is None
        told = "".join(traceback.format_exception(caught.value))
        assert CANARY not in told
        assert "Borodin" not in told


async def test_the_key_goes_to_no_other_host(model, server):
    with ModelServer(GOOD) as elsewhere:
        server.answers.append(Reply(status=307, headers={"location": f"{elsewhere.url}/v1/chat/completions"}))
        with pytest.raises(ModelError) as caught:
            await ask(model)
    assert not caught.value.retryable
    assert elsewhere.requests == []


async def test_closing_twice_is_fine_and_ends_a_call_under_way(model, server):
    server.default = Reply("x", delay=10)
    task = asyncio.create_task(ask(model))
    await asyncio.to_thread(server.arrived.acquire)
    await model.close()
    await model.close()
    with pytest.raises(ModelError):
        await task


async def test_the_summariser_works_over_the_wire(model, server):
    note = {"text": "Ada lives in Lisbon", "sources": [1], "importance": 0.8}
    server.answers.append(Reply(lambda request: json.dumps({"notes": [note] if "Lisbon" in request.content else []})))
    line = SummaryLine("Ada: I moved to Lisbon.", (4,), datetime(2026, 3, 1, tzinfo=UTC))
    lines, usage = await ModelSummariser(model, count=len).summarise([line], max_tokens=100)
    assert [(x.text, x.seqs) for x in lines] == [("Ada lives in Lisbon", (4,))]
    assert usage.total == INPUT_TOKENS + OUTPUT_TOKENS


@pytest.mark.parametrize("key", ["", "  ", "two\nlines", "schlüssel"])
def test_what_cannot_be_a_key_is_refused(key):
    for made in (OpenAIChatModel, GeminiChatModel):
        with pytest.raises(ConfigError, match="api_key"):
            made(api_key=SecretStr(key))
