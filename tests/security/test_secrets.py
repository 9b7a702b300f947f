"""A canary in every secret: it may appear in no repr, no log at DEBUG, and no exception, its causes included."""

import asyncio
import logging
import traceback
from functools import partial

import pytest
from tests.servers import Redis

from llm_memory_plugins import ConversationBufferMemory, ConversationSummaryMemory
from llm_memory_plugins.cli import main
from llm_memory_plugins.errors import LLMMemoryError
from llm_memory_plugins.testing.model_server import ModelServer, Reply

pytestmark = pytest.mark.slow

CANARY = "canary-7f3a"
MESSAGE = {"session_id": "s", "user_id": "u", "role": "user", "content": "hello " * 200}
DEAD = "127.0.0.1:1"
HEAD = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0."  # of a token whose subject is u


def settings_of(kind, request):
    """Engines that reach their servers, engines that do not, and engines whose settings are wrong."""
    server = request.getfixturevalue("redis_with_password")
    hot = {"redis_url": server.url}
    if kind == "healthy":
        return {**hot, "database_url": request.getfixturevalue("canary_login")}
    if kind == "dead servers":
        return {"redis_url": f"redis://x:{CANARY}@{DEAD}", "database_url": f"postgresql://x:{CANARY}@{DEAD}/x"}
    if kind == "wrong passwords":
        host = request.getfixturevalue("authenticator_url").rpartition("@")[2]
        wrong = server.url.replace(CANARY, f"{CANARY}-wrong")
        return {"redis_url": wrong, "database_url": f"postgresql://authenticator:{CANARY}@{host}"}
    if kind == "wrong password of the hot tier":
        wrong = server.url.replace(CANARY, f"{CANARY}-wrong")
        return {"redis_url": wrong, "database_url": request.getfixturevalue("canary_login")}
    if kind == "dead API":
        return {**hot, "supabase_url": f"http://{DEAD}", "supabase_key": CANARY}
    api = request.getfixturevalue("supabase_api").url
    if kind == "wrong key":
        return {**hot, "supabase_url": api, "supabase_key": CANARY}
    return {**hot, "supabase_url": api, "supabase_key": CANARY, "supabase_user_token": HEAD + CANARY}


KINDS = (
    "healthy",
    "dead servers",
    "wrong passwords",
    "wrong password of the hot tier",
    "dead API",
    "wrong key",
    "forged token",
)


@pytest.fixture(scope="session")
def redis_with_password():
    with Redis(requirepass=CANARY) as server:
        yield server


@pytest.fixture
def canary_login(authenticator_url, postgres):
    import psycopg

    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"drop role if exists app; create role app login noinherit password '{CANARY}'")
        connection.execute("grant authenticated, service_role to app")
    return f"postgresql://app:{CANARY}@{authenticator_url.rpartition('@')[2]}"


@pytest.fixture
def everything_logged(caplog):
    for name in [None, *logging.root.manager.loggerDict]:
        logging.getLogger(name).setLevel(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    yield caplog
    for name in logging.root.manager.loggerDict:
        logging.getLogger(name).setLevel(logging.NOTSET)


def insides(value, depth=6, seen=None):
    """The repr and str of a value and of whatever can be reached from it through our own objects."""
    seen = set() if seen is None else seen
    if depth == 0 or id(value) in seen:
        return
    seen.add(id(value))
    yield f"{value!r} {value!s}"
    if isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        inner = list(value)
    elif type(value).__module__.startswith("llm_memory_plugins"):
        inner = list(getattr(value, "__dict__", {}).values())
    else:
        return
    for each in inner:
        yield from insides(each, depth - 1, seen)


def said_by(error):
    return "".join(traceback.format_exception(error)) + repr(vars(error))


async def try_out(config):
    """Use a memory in every way; returns what was shown."""
    shown = []
    with ModelServer(Reply(status=401)) as models:
        keys = {"openai_api_key": CANARY, "google_api_key": CANARY, "openai_base_url": f"{models.url}/v1"}
        more = {"summarization_model": "gpt-5-mini", "summary_trigger_tokens": 10, "buffer_window_size": 1}
        for engine in (ConversationBufferMemory, ConversationSummaryMemory):
            memory = engine({**config, **keys, **more, "database_timeout": 2})
            shown += insides(memory)
            calls = [
                memory.initialize,
                *[partial(memory.store, MESSAGE)] * 3,
                partial(memory.get_context, {"session_id": "s", "user_id": "u"}),
                *([partial(memory.compact, "s", "u")] if engine is ConversationSummaryMemory else []),
                partial(memory.list_sessions, "u"),
                memory.health_check,
                partial(memory.forget, user_id="u"),
                memory.close,
            ]
            for call in calls:
                try:
                    shown += insides(await call())
                except LLMMemoryError as error:
                    shown.append(said_by(error))
            shown += insides(memory)
    return shown


def test_the_search_would_find_one():
    memory = ConversationBufferMemory({"database_url": "sqlite:///:memory:"})
    memory._ports.backends["x"] = {"inside": [CANARY]}
    assert [text for text in insides(memory) if CANARY in text]


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_is_shown(kind, request, everything_logged):
    shown = asyncio.run(try_out(settings_of(kind, request)))
    assert len(shown) > 20
    assert not [text for text in shown if CANARY in text]
    records = [record.getMessage() + str(record.__dict__) for record in everything_logged.records]
    assert records, "something was logged at all"
    assert not [text for text in records if CANARY in text]


def test_no_secret_is_shown_where_a_setting_is_wrong():
    wrong = [
        {"database_url": f"postgresql://x:{CANARY}@[broken"},
        {"database_url": f"postgresql://x:{CANARY}@h:port/x"},
        {"database_url": f"postgresql://h/x?password={CANARY}&nonsense={CANARY}"},
        {"database_url": f"mysql://x:{CANARY}@h/x"},
        {"database_url": f"sqlite:{CANARY}"},
        {"redis_url": f"http://x:{CANARY}@h"},
        {"redis_url": f"redis://x:{CANARY}@h:port"},
        {"redis_url": f"redis+sentinel://x:{CANARY}@h"},
        {"supabase_url": "nowhere", "supabase_key": CANARY},
        {"supabase_url": "http://h", "supabase_key": CANARY, "supabase_user_token": CANARY},
        {"supabase_url": "http://h", "supabase_key": [CANARY]},
        {"openai_api_key": {"key": CANARY}},
    ]
    for config in wrong:
        with pytest.raises(LLMMemoryError) as refused:  # noqa: PT012 - some are refused when they are opened
            memory = ConversationBufferMemory({"database_timeout": 1, **config})
            asyncio.run(memory.initialize())
            raise AssertionError(config)
        assert CANARY not in said_by(refused.value), config


@pytest.mark.parametrize("url", [f"postgresql://x:{CANARY}@{DEAD}/x", f"postgresql://x:{CANARY}@h:port"])
@pytest.mark.parametrize("command", [["migrate"], ["stats"], ["--debug", "stats"]])
def test_the_command_line_shows_no_secret(url, command, capsys, monkeypatch, everything_logged):
    monkeypatch.setenv("LLM_MEMORY_DATABASE_URL", url)
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code
    out, err = capsys.readouterr()
    assert CANARY not in f"{out}{err}{ended.value.code}{everything_logged.text}"
