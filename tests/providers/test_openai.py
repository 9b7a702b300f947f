"""What is OpenAI's own: its request, its errors, its odd relatives, and its environment."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import BaseModel, SecretStr

from llm_memory_plugins.errors import MissingExtra, ModelError
from llm_memory_plugins.providers.openai import DEFAULT_MODEL, OpenAIChatModel
from llm_memory_plugins.testing.model_server import ModelServer, Reply

KEY = SecretStr("sk-the-explicit-one")


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
        await ask(OpenAIChatModel(api_key=KEY, base_url=server.openai_url))
    return caught.value


async def test_the_request_is_a_chat_completion_with_a_strict_schema(server):
    server.default = GOOD
    await ask(OpenAIChatModel(api_key=KEY, base_url=server.openai_url, model="local"))
    (request,) = server.requests
    schema = request.body.pop("response_format")["json_schema"]
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer sk-the-explicit-one"
    assert (schema["strict"], schema["schema"]["required"], schema["schema"]["additionalProperties"]) == (
        True,
        ["name"],
        False,
    )
    assert request.body == {
        "model": "local",
        "messages": [{"role": "system", "content": "Name it."}, {"role": "user", "content": "Meow"}],
        "max_completion_tokens": 50,
        "stream": False,
    }


@pytest.mark.parametrize(
    ("options", "effort"),
    [
        ({}, "none"),
        ({"model": DEFAULT_MODEL}, "none"),
        ({"reasoning_effort": "high"}, "high"),
        ({"model": "other"}, None),
        ({"model": "other", "reasoning_effort": "low"}, "low"),
    ],
)
async def test_the_default_model_does_not_spend_its_answer_on_thoughts(server, options, effort):
    server.default = GOOD
    model = OpenAIChatModel(api_key=KEY, base_url=server.openai_url, **options)
    assert model.identity == f"openai/{options.get('model', DEFAULT_MODEL)}"
    await ask(model)
    assert server.requests[0].body.get("reasoning_effort") == effort


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
    ],
)
async def test_retry_after_in_all_its_forms(server, headers, expected):
    assert (await failure(server, Reply(status=429, headers=headers))).retry_after == expected


async def test_retry_after_as_a_date(server):
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    error = await failure(server, Reply(status=503, headers={"retry-after": until}))
    assert error.retry_after == pytest.approx(59, abs=2)


async def test_an_empty_account_is_no_rate_limit(server):
    raw = '{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}'
    error = await failure(server, Reply(status=429, raw=raw))
    assert not error.retryable
    assert "insufficient_quota" in str(error)


async def test_a_content_filter_is_final(server):
    assert not (await failure(server, Reply('{"name": "c', finish="filter"))).retryable


@pytest.mark.parametrize(
    "raw",
    [
        "null",
        '{"error": {"message": "overloaded"}}',
        '{"choices": null}',
        '{"choices": [{}]}',
        '{"choices": [{"message": null}]}',
        '{"choices": [{"message": {"content": 5}}]}',
        '{"choices": [{"message": {"content": [{"type": "text", "text": "cat"}]}}]}',
        b"\xff\xfe",
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
async def test_a_proxy_that_answers_200_with_something_else(server, raw, kind):
    assert (await failure(server, Reply(raw=raw, headers={"content-type": kind}))).retryable


@pytest.mark.parametrize("usage", ["", ', "usage": null', ', "usage": {"prompt_tokens": null}'])
async def test_a_server_that_counts_no_tokens(server, usage):
    content = '"{\\"name\\": \\"cat\\"}"'
    server.default = Reply(raw=f'{{"choices": [{{"message": {{"content": {content}}}}}]{usage}}}')
    answer, used = await ask(OpenAIChatModel(api_key=KEY, base_url=server.openai_url))
    assert (answer.name, used.calls, used.total) == ("cat", 1, 0)


async def test_the_environment_gives_way_to_what_is_said(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-env")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-from-env")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    server.default = GOOD
    await ask(OpenAIChatModel(api_key=KEY, base_url=server.openai_url))
    assert server.requests[0].headers["authorization"] == "Bearer sk-the-explicit-one"


async def test_ping_looks_the_model_up_and_lists_on_other_servers(server, monkeypatch):
    model = OpenAIChatModel(api_key=KEY, base_url=server.openai_url, model="local")
    await model.ping()
    await model.close()
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
    model = OpenAIChatModel(api_key=KEY, model="gpt-mine")
    await model.ping()
    server.answers.append(Reply(status=401))
    with pytest.raises(ModelError, match="openai_api_key"):
        await model.ping()
    await model.close()
    assert [request.path for request in server.requests] == ["/v1/models", *["/v1/models/gpt-mine"] * 2]


def test_the_sdk_is_imported_when_a_model_is_made_and_named_when_missing(monkeypatch):
    code = "import sys, llm_memory_plugins.providers.openai; sys.exit(bool({'openai', 'httpx2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"pip install 'llm-memory-plugins\[openai\]'"):
        OpenAIChatModel(api_key=KEY)
