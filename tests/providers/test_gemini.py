"""What is Gemini's own: its request, its errors, its reasons to stop, and its environment."""

import json
import subprocess
import sys

import pytest
from pydantic import BaseModel, SecretStr

from llm_memory_plugins.errors import MissingExtra, ModelError
from llm_memory_plugins.providers.gemini import DEFAULT_MODEL, GeminiChatModel
from llm_memory_plugins.testing.model_server import ModelServer, Reply

KEY = SecretStr("the-explicit-one")


class Animal(BaseModel):
    name: str


GOOD = Reply('{"name": "cat"}')


@pytest.fixture
def server():
    with ModelServer() as running:
        yield running


async def ask(model):
    try:
        return await model.generate(instructions="Name it.", content="Meow", answer=Animal, max_output_tokens=50)
    finally:
        await model.close()


async def failure(server, reply):
    server.answers.append(reply)
    with pytest.raises(ModelError) as caught:
        await ask(GeminiChatModel(api_key=KEY, base_url=server.url))
    return caught.value


def said(*parts, **rest):
    return json.dumps({"candidates": [{"content": {"parts": list(parts)}, **rest.pop("candidate", {})}], **rest})


async def test_the_request_carries_the_schema_and_the_limit(server):
    server.default = GOOD
    model = GeminiChatModel(api_key=KEY, base_url=server.url)
    assert model.identity == f"gemini/{DEFAULT_MODEL}"
    await ask(model)
    (request,) = server.requests
    assert request.path.endswith(f"/models/{DEFAULT_MODEL}:generateContent")
    assert request.headers["x-goog-api-key"] == "the-explicit-one"
    assert "x-server-timeout" not in request.headers
    assert (request.instructions, request.content) == ("Name it.", "Meow")
    assert request.body["generationConfig"] == {
        "maxOutputTokens": 50,
        "responseMimeType": "application/json",
        "responseJsonSchema": Animal.model_json_schema(),
    }


async def test_thoughts_are_paid_for_but_are_no_answer(server):
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 3, "thoughtsTokenCount": 20}
    thought = {"text": "Hm, a cat?", "thought": True}
    server.default = Reply(raw=said(thought, {"text": '{"name":'}, {"text": ' "cat"}'}, usageMetadata=usage))
    answer, used = await ask(GeminiChatModel(api_key=KEY, base_url=server.url))
    assert (answer.name, used.input_tokens, used.output_tokens, used.calls) == ("cat", 5, 23, 1)


@pytest.mark.parametrize(("delay", "expected"), [("17s", 17.0), ("0.25s", 0.25), ("soon", None), ("", None)])
async def test_the_wait_stands_in_the_error_itself(server, delay, expected):
    details = [{"@type": "a/google.rpc.Help"}, {"@type": "a/google.rpc.RetryInfo", "retryDelay": delay}]
    raw = json.dumps({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}})
    error = await failure(server, Reply(status=429, raw=raw))
    assert (error.retryable, error.retry_after) == (True, expected)
    assert "RESOURCE_EXHAUSTED" in str(error)


async def test_a_wrong_key_comes_as_a_bad_request(server):
    details = [{"@type": "a/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    raw = json.dumps({"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": details}})
    error = await failure(server, Reply(status=400, raw=raw))
    assert not error.retryable
    assert "google_api_key" in str(error)


@pytest.mark.parametrize(
    ("reason", "retryable"),
    [("SAFETY", False), ("RECITATION", False), ("SOME_NEW_FILTER", False), ("OTHER", True), ("CONTINUATION", True)],
)
async def test_reasons_to_stop(server, reason, retryable):
    raw = said({"text": '{"name": "cat"}'}, candidate={"finishReason": reason})
    error = await failure(server, Reply(raw=raw))
    assert error.retryable is retryable
    assert reason in str(error)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "raw", ["null", '{"candidates": "x"}', '{"candidates": [{"content": {"parts": [{"text": 5}]}}]}', b"\xff\xfe"]
)
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
async def test_a_proxy_that_answers_200_with_something_else(server, raw, kind):
    assert (await failure(server, Reply(raw=raw, headers={"content-type": kind}))).retryable


@pytest.mark.parametrize("raw", ["<html>", "[1, 2]", '"x"', '{"error": "x"}', '{"error": {"details": 5}}', b"\xff"])
async def test_an_error_that_is_not_of_the_protocol(server, raw):
    assert (await failure(server, Reply(status=503, raw=raw))).retryable


async def test_the_environment_gives_way_to_what_is_said(server, monkeypatch):
    monkeypatch.setenv("GOOGLE_API_KEY", "google-from-env")
    monkeypatch.setenv("GEMINI_API_KEY", "gemini-from-env")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GENAI_USE_ENTERPRISE", "false")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "some-project")
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "somewhere")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:9")
    server.default = GOOD
    await ask(GeminiChatModel(api_key=KEY, base_url=server.url))
    assert server.requests[0].headers["x-goog-api-key"] == "the-explicit-one"
    assert "project" not in server.requests[0].path


async def test_ping_looks_the_model_up(server):
    model = GeminiChatModel(api_key=KEY, base_url=server.url, model="gemini-mine")
    await model.ping()
    assert server.requests[0].path.endswith("/models/gemini-mine")
    for reply in (Reply(status=404), Reply(raw="<html>"), Reply(status=500)):
        server.answers.append(reply)
        with pytest.raises(ModelError):
            await model.ping()
    await model.close()


def test_the_sdk_is_imported_when_a_model_is_made_and_named_when_missing(monkeypatch):
    code = (
        "import sys, llm_memory_plugins.providers.gemini; sys.exit(bool({'google.genai', 'httpx2'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    monkeypatch.setitem(sys.modules, "google.genai", None)
    monkeypatch.delattr(sys.modules.get("google"), "genai", raising=False)
    with pytest.raises(MissingExtra, match=r"pip install 'llm-memory-plugins\[gemini\]'"):
        GeminiChatModel(api_key=KEY)
