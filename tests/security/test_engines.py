"""An engine for one user is refused everything of others, and not told whether there is anything."""

import jwt
import psycopg
import pytest
from tests.security import catalog
from tests.security.conftest import STRANGER, A, B

from llm_memory_plugins import ConversationBufferMemory
from llm_memory_plugins.engines.summary import ConversationSummaryMemory
from llm_memory_plugins.errors import AccessDenied, ConfigError
from llm_memory_plugins.types import SessionRef

pytestmark = pytest.mark.slow

WAYS = ["user_id over the pool", "user_id over the API", "token over the API"]


@pytest.fixture(params=WAYS)
def scoped(request, database_url):
    """Settings of an engine that is for one user."""

    def settings(user_id):
        if request.param == WAYS[0]:
            return {"database_url": request.getfixturevalue("authenticator_url"), "user_id": user_id}
        api = request.getfixturevalue("supabase_api")
        if request.param == WAYS[1]:
            return {"supabase_url": api.url, "supabase_key": api.service_key, "user_id": user_id}
        return {"supabase_url": api.url, "supabase_key": api.anon_key, "supabase_user_token": api.token(user_id)}

    catalog.fill(database_url)
    with psycopg.connect(database_url) as connection:  # other tests keep copies of this store in Redis
        connection.execute("update llm_memory.store set hot = false")
    return settings


async def said(memory, session, text, **named):
    return await memory.store({"session_id": session, "role": "user", "content": text, **named})


@pytest.mark.parametrize("engine", [ConversationBufferMemory, ConversationSummaryMemory])
async def test_an_engine_for_one_user_neither_reads_nor_writes_anything_of_anothers(
    scoped, engine, database_url, tmp_path
):
    async with engine(scoped(A)) as mine, engine(scoped(B)) as other:
        await said(mine, "shared", "A's secret", id="same")
        await said(mine, "only A's", "A's secret")
        before = catalog.dump(database_url, A)

        for session in ("shared", "only A's", "unheard of"):
            refused = [
                lambda s=session: other.get_context({"session_id": s, "user_id": A}),
                lambda s=session: said(other, s, "mine", user_id=A),
                lambda s=session: other.get_session_stats(s, A),
                lambda s=session: other.clear(s, A),
                lambda s=session: other.export(tmp_path / "taken.jsonl", session_id=s, user_id=A),
                lambda s=session: anext(other.messages(s, A)),
            ]
            told = set()
            for attempt in refused:
                with pytest.raises(AccessDenied) as error:
                    await attempt()
                told.add(str(error.value).replace(session, ""))
            assert len(told) == 1
            context = await other.get_context({"session_id": session})
            assert (context.messages, context.errors) == ((), {})
            assert (await other.get_session_stats(session)).message_count == 0
            assert not any((await other.clear(session)).removed.values())
            assert [message async for message in other.messages(session)] == []
        for attempt in (lambda: other.forget(user_id=A), lambda: other.list_sessions(A)):
            with pytest.raises(AccessDenied):
                await attempt()
        assert await other.list_sessions() == ()
        assert await other.list_sessions(after=SessionRef("", "")) == ()
        assert await other.export(tmp_path / "all.jsonl") == 0
        (tmp_path / "forged.jsonl").write_text(
            f'{{"session_id": "s", "user_id": "{A}", "role": "user", "content": "x"}}\n'
        )
        with pytest.raises(AccessDenied):
            await other.import_(tmp_path / "forged.jsonl")
        assert catalog.dump(database_url, A) == before

        # The same names and ids are its own to use.
        stored = await said(other, "shared", "B's own", id="same")
        assert (stored.user_id, stored.seq, stored.content) == (B, 1, "B's own")
        assert [m.content for m in (await mine.get_context({"session_id": "shared"})).messages] == ["A's secret"]
        assert (await other.forget(user_id=B)).removed["messages"] == 1
        assert catalog.dump(database_url, A) == before


async def test_one_call_for_several_users_is_refused_as_a_whole(scoped, database_url):
    async with ConversationBufferMemory(scoped(B)) as memory:
        line = {"session_id": "s", "role": "user", "content": "x"}
        with pytest.raises(AccessDenied):
            await memory.store([line, line | {"user_id": B}, line | {"user_id": A}])
        assert await memory.list_sessions() == ()
    assert not any(catalog.dump(database_url, A).values())


FORGED = {
    "unsigned": lambda api: jwt.encode({"sub": A, "role": "authenticated"}, None, algorithm="none"),
    "unsigned and all-powerful": lambda api: jwt.encode({"sub": A, "role": "service_role"}, None, algorithm="none"),
    "signed by others": lambda api: jwt.encode({"sub": A, "role": "authenticated"}, "x" * 50, algorithm="HS256"),
    "of another body": lambda api: _with_body_of(api.token(B), api.token(A)),
    "expired": lambda api: api.token(A, exp=1_000_000_000),
    "anonymous": lambda api: api.token(A, role="anon"),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
async def test_a_forged_token_is_denied_access(supabase_api, database_url, forge):
    catalog.fill(database_url, A)
    before = catalog.dump(database_url, A)
    settings = {"supabase_url": supabase_api.url, "supabase_key": supabase_api.anon_key}
    memory = ConversationBufferMemory(settings | {"supabase_user_token": forge(supabase_api)})
    for attempt in (
        memory.initialize,
        lambda: memory.get_context({"session_id": catalog.KEY}),
        lambda: said(memory, catalog.KEY, "mine"),
        lambda: memory.forget(user_id=A),
    ):
        with pytest.raises(AccessDenied):
            await attempt()
    assert (await memory.health_check()).status == "unhealthy"
    await memory.close()
    assert catalog.dump(database_url, A) == before


async def test_a_user_key_without_a_token_is_denied_access(supabase_api):
    memory = ConversationBufferMemory({"supabase_url": supabase_api.url, "supabase_key": supabase_api.anon_key})
    with pytest.raises(AccessDenied):
        await memory.initialize()


def test_a_token_is_for_its_own_user_only(supabase_api):
    settings = {"supabase_url": supabase_api.url, "supabase_key": supabase_api.anon_key, "user_id": A}
    with pytest.raises(ConfigError, match="user_id"):
        ConversationBufferMemory(settings | {"supabase_user_token": supabase_api.token(STRANGER)})


async def test_a_name_that_several_users_have_is_the_own_one_to_an_engine_for_one_user(scoped):
    async with ConversationBufferMemory(scoped(A)) as mine, ConversationBufferMemory(scoped(B)) as other:
        await said(mine, "shared", "A's secret")
        await said(other, "shared", "B's own")
        assert [m.content for m in (await other.get_context({"session_id": "shared"})).messages] == ["B's own"]
        assert [s.user_id for s in await other.list_sessions()] == [B]


def _with_body_of(signed, wanted):
    head, _, signature = signed.split(".")
    return ".".join([head, wanted.split(".")[1], signature])
