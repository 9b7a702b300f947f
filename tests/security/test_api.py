"""What Supabase's API lets a token reach: the functions, as its own user, and nothing else of ours."""

import httpx
import jwt
import psycopg
import pytest
from tests.security import catalog
from tests.security.catalog import KEY, arguments, functions, secret, tables, views
from tests.security.conftest import STRANGER, A, B

pytestmark = pytest.mark.slow

UNREACHABLE = {404, 406}  # no such thing in the exposed schemas; no such schema
REFUSED = {401, 403}


class Api:
    """Requests as somebody, by the names of `ACTORS`."""

    def __init__(self, server):
        claims = {"sub": A, "role": "authenticated", "aud": "authenticated", "exp": 4102444800}
        self.headers = {
            "a": self._headers(server.anon_key, server.token(A)),
            "b": self._headers(server.anon_key, server.token(B)),
            "stranger": self._headers(server.anon_key, server.token(STRANGER)),
            "service": self._headers(server.service_key, server.service_key),
            "anonymous": self._headers(server.anon_key),
            "anonymous token": self._headers(server.anon_key, server.token(A, role="anon")),
            "no key": {},
            "wrong key": self._headers("sb_secret_made-up", "sb_secret_made-up"),
            "unsigned token": self._headers(server.anon_key, jwt.encode(claims, None, algorithm="none")),
            "token signed by others": self._headers(server.anon_key, jwt.encode(claims, "x" * 50, algorithm="HS256")),
            "expired token": self._headers(server.anon_key, server.token(A, exp=1_000_000_000)),
        }
        self.http = httpx.Client(base_url=f"{server.url}/rest/v1/", timeout=10)

    @staticmethod
    def _headers(key, bearer=None):
        return {"apikey": key} | ({} if bearer is None else {"Authorization": f"Bearer {bearer}"})

    def request(self, actor, method, path, *, schema=None, **options):
        profile = {} if schema is None else {"Accept-Profile": schema, "Content-Profile": schema}
        return self.http.request(method, path, headers=self.headers[actor] | profile, **options)

    def call(self, actor, function, **named):
        values = arguments(function, **named)
        return self.request(actor, "POST", f"rpc/{function.name.split('.')[1]}", json=values)


WITHOUT_TOKEN = ["anonymous", "anonymous token", "no key", "wrong key", "unsigned token", "token signed by others"]
WITHOUT_TOKEN += ["expired token"]


@pytest.fixture(scope="module")
def api(supabase_api):
    opened = Api(supabase_api)
    yield opened
    opened.http.close()


@pytest.fixture
def shared(database_url):
    """The rows of two users in the database behind the API."""
    catalog.fill(database_url, A, B)
    yield database_url
    catalog.fill(database_url)


@pytest.fixture
def connection(shared):
    with psycopg.connect(shared, autocommit=True) as opened:
        yield opened


@pytest.fixture
def ours(connection):
    """The functions that are for callers."""
    return [function for function in functions(connection) if function.name.startswith("public.")]


def test_owners_may_call_every_function_by_their_token(connection, shared, api, ours):
    assert len(ours) > 5
    for function in ours:
        catalog.fill(shared, A, B)
        answer = api.call("a", function, user=A, session=KEY, owner=A)
        assert answer.status_code == 200, (function.name, answer.text)
        assert secret(B) not in answer.text, function.name


@pytest.mark.parametrize("caller", ["b", "stranger"])
@pytest.mark.parametrize("named", [(A, KEY), (A, None), (None, KEY), (None, None)], ids=str)
def test_functions_do_nothing_with_what_is_anothers(shared, api, ours, caller, named):
    before = catalog.dump(shared, A)
    for function in ours:
        catalog.fill(shared, A, B)  # what the last one did to the caller's own rows
        answer = api.call(caller, function, user=named[0], session=named[1], owner=A)
        assert secret(A) not in answer.text, (function.name, answer.text)
        assert A not in answer.text, (function.name, answer.text)
        assert catalog.dump(shared, A) == before, function.name


def test_functions_do_not_tell_whether_another_user_or_a_session_of_theirs_exists(shared, api, ours):
    for function in ours:
        told = set()
        for owner, session in ((A, KEY), (A, "unheard of"), ("nobody", "unheard of")):
            answer = api.call("stranger", function, user=owner, session=session, owner=owner)
            told.add((answer.status_code, answer.text.replace(owner, A).replace(session, KEY)))
        assert len(told) == 1, (function.name, told)


@pytest.mark.parametrize("actor", WITHOUT_TOKEN)
def test_who_has_no_good_token_is_refused_every_function(shared, api, ours, actor):
    before = catalog.dump(shared, A), catalog.dump(shared, B)
    for function in ours:
        for named in ((A, KEY), (None, KEY)):
            answer = api.call(actor, function, user=named[0], session=named[1], owner=A)
            assert answer.status_code in REFUSED, (function.name, answer.text)
            by_get = api.request(actor, "GET", f"rpc/{function.name.split('.')[1]}")
            assert by_get.status_code in REFUSED | UNREACHABLE, (function.name, by_get.text)
    assert (catalog.dump(shared, A), catalog.dump(shared, B)) == before


@pytest.mark.parametrize("actor", ["a", "b", "service", *WITHOUT_TOKEN])
def test_no_table_view_or_inner_function_can_be_reached(connection, shared, api, actor):
    before = catalog.dump(shared, A), catalog.dump(shared, B)
    expected = UNREACHABLE | (REFUSED if actor in WITHOUT_TOKEN else set())
    inner = [function.name for function in functions(connection) if function.name.startswith("llm_memory.")]
    things = [table.name for table in [*tables(connection), *views(connection)]] + [f".rpc/{n}" for n in inner]
    for thing in things:
        path = thing.replace(".rpc/llm_memory.", "rpc/").removeprefix("llm_memory.")
        for method in ("GET", "POST") if "rpc/" in path else ("GET", "POST", "PATCH", "PUT", "DELETE", "HEAD"):
            body = {"json": {"user_id": A}} if method in {"POST", "PATCH", "PUT"} else {}
            upsert = {"on_conflict": "user_id"} if method == "POST" else {"user_id": f"eq.{A}"}
            for schema in (None, "llm_memory"):
                answer = api.request(actor, method, path, schema=schema, params=upsert, **body)
                assert answer.status_code in expected, (method, path, schema, answer.status_code, answer.text)
                assert secret(A) not in answer.text
                assert secret(B) not in answer.text
    assert (catalog.dump(shared, A), catalog.dump(shared, B)) == before


def test_the_service_key_sees_everybody(shared, api, ours):
    found = api.request("service", "POST", "rpc/memory_sessions", json={})
    assert sorted(session["user_id"] for session in found.json()) == [A, B]
    for function in ours:  # and its functions only whom they name
        catalog.fill(shared, A, B)
        before = catalog.dump(shared, A)
        answer = api.call("service", function, user=B, session=KEY, owner=B)
        assert answer.status_code == 200, (function.name, answer.text)
        assert secret(A) not in answer.text, function.name
        assert catalog.dump(shared, A) == before, function.name
