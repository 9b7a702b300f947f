"""Users who share the connections of one pool never meet."""

import asyncio
import contextlib
import json

import pytest
from pydantic import SecretStr
from tests.security import catalog
from tests.security.catalog import KEY, NOW, secret
from tests.security.conftest import A, B

from llm_memory_plugins.errors import LLMMemoryError
from llm_memory_plugins.stores.postgres import PostgresTransport

pytestmark = pytest.mark.slow

WHO = "select session_user, current_user, current_setting('role'), current_setting('request.jwt.claims', true)"


@pytest.fixture
async def single(plain_login_url, filled):
    transport = PostgresTransport(SecretStr(plain_login_url), pool_size=1, timeout=20.0)
    await transport.open()
    yield transport
    await transport.close()


async def left_behind(transport):
    """What the next borrower of the only connection would find."""
    async with transport._pool.connection() as connection:
        session_user, current_user, role, claims = await (await connection.execute(WHO)).fetchone()
        pid = connection.info.backend_pid
    assert session_user == "authenticator"
    return pid, current_user, role, claims or ""


async def test_nothing_of_a_call_is_left_on_its_connection(single):
    pid, *clean = await left_behind(single)
    assert clean == ["authenticator", "none", ""]
    page = {"session_id": KEY, "user_id": None}
    refused = {"batches": catalog.batches(A, KEY, B)}
    for function, arguments, user_id in (
        ("page_messages", page, A),
        ("page_messages", page, B),
        ("memory_sessions", {}, None),
        ("append_messages", {"batches": catalog.batches(None, KEY, A)}, A),
        ("append_messages", refused, B),
        ("append_messages", {"batches": "no JSON"}, A),
        ("page_messages", {"session_id": KEY, "limit": -1}, A),
        ("no_such_function", {}, A),
        ("page_messages", page, 'o\'brien\\ "quoted" 🙂'),
    ):
        with contextlib.suppress(LLMMemoryError):
            await single.call(function, arguments, user_id=user_id)
        assert await left_behind(single) == (pid, *clean), (function, user_id)


async def test_nothing_is_left_by_a_call_whose_caller_has_gone(single):
    for _ in range(20):
        call = asyncio.create_task(single.call("page_messages", {"session_id": KEY}, user_id=A))
        await asyncio.sleep(0)
        call.cancel()
        assert (await left_behind(single))[1:] == ("authenticator", "none", "")
    assert {row["user_id"] for row in await single.call("page_messages", {"session_id": KEY}, user_id=B)} == {B}


async def test_two_hundred_calls_at_once_each_see_their_own_user_only(plain_login_url, filled):
    transport = PostgresTransport(SecretStr(plain_login_url), pool_size=4, timeout=60.0)
    await transport.open()

    async def work(number):
        user_id = f"user {number % 50}"
        message = {"id": str(number), "role": "user", "content": secret(user_id), "created_at": NOW, "tokens": 1}
        batch = {"session_id": KEY, "messages": [message | {"tokenizer": "t"}]}
        (appended,) = await transport.call("append_messages", {"batches": json.dumps([batch])}, user_id=user_id)
        assert appended["user_id"] == user_id
        # No argument names the user: the claims of the connection are all there is.
        rows = await transport.call("page_messages", {"session_id": KEY}, user_id=user_id)
        sessions = await transport.call("memory_sessions", {}, user_id=user_id)
        assert {row["content"] for row in rows} == {secret(user_id)}
        assert str(number) in {row["id"] for row in rows}
        assert [session["user_id"] for session in sessions] == [user_id]

    try:
        await asyncio.gather(*map(work, range(200)))
        everybody = await transport.call("memory_sessions", {"limit": 1000}, user_id=None)
        assert [(s["message_count"], s["last_seq"]) for s in everybody if s["user_id"] not in {A, B}] == [(4, 4)] * 50
    finally:
        await transport.close()
