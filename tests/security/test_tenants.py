"""No user reads, writes, moves or calls anything of another's, straight in the database.

What is tried on comes from the database's own catalog: a new table, view or function is in it without being named here.
"""

import re

import pytest
from psycopg import sql
from tests.security import catalog
from tests.security.catalog import KEY, arguments, call, functions, insert, row, secret, tables, tenant_tables, views
from tests.security.conftest import ANON, NOBODY, SERVICE, STRANGER, A, Actor, B, user

pytestmark = pytest.mark.slow

DENIED = "42501"
# For migrations and for the owner only: no user may call them.
INTERNAL = {"llm_memory.protect", "llm_memory.index_embeddings", "llm_memory.drop_embeddings_index"}
HOSTILE = {
    "text": [
        *("", "%", "*", "\\", "' or true --", "'; delete from llm_memory.messages; --", "\u202e🙂", "x" * 100_000),
        *("{}", "[]", "[null]", "[[]]", "null", f'{{"sub": "{A}"}}', f'[{{"user_id": "{A}"}}]'),
        *(A, KEY, "llm_memory.sessions"),
        catalog.batches(A, KEY, A)[:-1] + "," + catalog.batches(None, KEY, A)[1:],
    ],
    "integer": ["-1", "0", "2147483647"],
    "bigint": ["-1", "0", "9223372036854775807"],
    "timestamp with time zone": ["infinity", "-infinity", "epoch"],
}
CLAIMS = ["", "{}", "[]", "null", "no JSON", f'"{A}"', f'["{A}"]', '{"sub": null}', '{"sub": ""}']
CLAIMS += [f'{{"sub": ["{A}"]}}', f'{{"sub": {{"sub": "{A}"}}}}', f'{{"SUB": "{A}"}}', f'{{"user_id": "{A}"}}']
CLAIMS += [f'{{"sub": "{A}%"}}', f'{{"sub": "{A} "}}', f'{{"sub": "{A.upper()}"}}', f'{{"sub": "{B}\' or 1=1"}}']
CLAIMS += [f'{{"sub": "{A}", "sub": "{B}"}}', f'{{"sub": "{A}\\u0001"}}']


def betrays(outcome, owner, *, asked=""):
    """Whether an answer or an error tells anything of the owner's that was not in the question."""
    told = repr(outcome)
    return (secret(owner) in told and secret(owner) not in asked) or (owner in told and owner not in asked)


def test_owners_see_their_rows_and_may_call_every_function(admin, filled, login):
    for table in [*tenant_tables(admin), *views(admin)]:
        seen = login.run(user(A), sql.SQL("select user_id from {}").format(table.identifier))
        assert seen.rows == [(A,)], table.name
    for function in functions(admin):
        statement = call(function, arguments(function, user=A, session=KEY, owner=A))
        outcome = login.run(user(A), *statement, keep=False)
        assert outcome.code == (DENIED if function.name in INTERNAL else None), (function.name, outcome)


def test_nobody_sees_a_row_of_another_user(admin, filled, login):
    admin.execute("analyze")
    peek = """create function pg_temp.peek(text) returns boolean language plpgsql cost 0.0000001
              as $$ begin raise exception 'peeked %', $1; end $$"""
    login.connection.execute(peek)
    for viewer in (B, STRANGER):
        for table in [*tenant_tables(admin), *views(admin)]:
            for query in (
                "select * from {} t",
                "select * from {} t where user_id = %(owner)s",
                "select t::text from {} t where user_id <> %(viewer)s",
                "select max(t::text) from {} t where user_id > '' having count(*) > 0",
                "select * from {} t where user_id <> %(viewer)s and pg_temp.peek(t::text)",
            ):
                outcome = login.run(
                    user(viewer), sql.SQL(query).format(table.identifier), {"owner": A, "viewer": viewer}
                )
                assert not betrays(outcome, A), (table.name, query, outcome)
                assert outcome.code is None, (table.name, query, outcome)
        statistics = login.run(user(viewer), "select * from pg_stats where schemaname = any (%s)", [["llm_memory"]])
        assert statistics.rows == []


def test_nobody_changes_a_row_of_another_user(admin, filled, login):
    before = catalog.dump(filled, A)
    for table in tenant_tables(admin):
        columns = [column.name for column in table.columns if column.name != "pk"]  # always generated
        taking = ", ".join(f"{name} = excluded.{name}" for name in columns)
        key = next(key for key in _unique_keys(admin, table) if set(key) <= {c.name for c in table.columns})
        on_conflict = f"on conflict ({', '.join(key)}) do"
        refused = {
            "insert": insert(table, row(table, A)),
            "insert of another key": insert(table, row(table, A) | dict.fromkeys(set(key) - {"user_id"}, "7")),
            "insert or nothing": insert(table, row(table, A), f"{on_conflict} nothing"),
            "upsert": insert(table, row(table, A), f"{on_conflict} update set {taking}"),
            "upsert that moves": insert(table, row(table, B), f"{on_conflict} update set user_id = '{A}'"),
            "move": (f"update {table.name} set user_id = %s", [A]),
            "move to nobody": (f"update {table.name} set user_id = ''", None),
            "truncate": (f"truncate {table.name} cascade", None),
        }
        for what, statement in refused.items():
            outcome = login.run(user(B), *statement)
            assert outcome.code == DENIED, (table.name, what, outcome)
            assert not betrays(outcome, A, asked=repr(statement)), (table.name, what, outcome)
        for column in columns:
            outcome = login.run(user(B), f"update {table.name} set {column} = {column} where user_id = %s", [A])
            assert (outcome.count, outcome.code) == (0, None), (table.name, column, outcome)
        for statement in (
            f"delete from {table.name} where user_id = %s",
            f"select from {table.name} where user_id = %s for update",
            f"merge into {table.name} t using (select %s as u) s on t.user_id = s.u when matched then delete",
        ):
            outcome = login.run(user(B), statement, [A])
            assert (outcome.count, outcome.code) == (0, None), (statement, outcome)
    for table in reversed(tenant_tables(admin)):
        login.run(user(B), sql.SQL("delete from {}").format(table.identifier))
    assert catalog.dump(filled, A) == before
    assert not any(catalog.dump(filled, B).values())  # what had no condition met B's own rows


def test_views_cannot_be_written(admin, filled, login):
    for view in views(admin):
        for statement in (
            f"update {view.name} set user_id = user_id",
            f"delete from {view.name}",
            f"insert into {view.name} (user_id) values ('{B}')",
        ):
            assert login.run(user(B), statement).code == DENIED, statement


def test_a_key_of_one_user_is_free_to_every_other(admin, filled, login):
    with login.connection.transaction(force_rollback=True):
        login.connection.execute(
            "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)", user(STRANGER)
        )
        for table in tenant_tables(admin):
            login.connection.execute(*insert(table, row(table, STRANGER)))
    for table in tenant_tables(admin):  # whether a key is taken does not show
        taken = login.run(user(STRANGER), *insert(table, row(table, A)))
        free = login.run(user(STRANGER), *insert(table, row(table, "nobody")))
        assert taken == free, table.name


@pytest.mark.parametrize("caller", [B, STRANGER], ids=["with rows", "without rows"])
@pytest.mark.parametrize("named", [(A, KEY), (A, None), (None, KEY), (None, None)], ids=str)
def test_functions_do_nothing_with_what_is_anothers(admin, filled, login, caller, named):
    before = catalog.dump(filled, A)
    for function in functions(admin):
        catalog.fill(filled, A, B)  # what the last one did to the caller's own rows
        values = arguments(function, user=named[0], session=named[1], owner=A)
        outcome = login.run(user(caller), *call(function, values))
        assert not betrays(outcome, A, asked=repr(values)), (function.name, outcome)
        assert catalog.dump(filled, A) == before, function.name


def test_functions_do_not_tell_whether_another_user_or_a_session_of_theirs_exists(admin, filled, login):
    for function in functions(admin):
        told = set()
        for owner, session in ((A, KEY), (A, "unheard of"), ("nobody", "unheard of")):
            for named in (owner, None):
                values = arguments(function, user=named, session=session, owner=owner)
                outcome = login.run(user(STRANGER), *call(function, values), keep=False)
                text = repr(outcome[:3]).replace(session, KEY).replace(owner, A)
                told.add((named is None, re.sub(r"'pk': \d+", "'pk': 0", text)))
        assert len(told) <= 2, (function.name, told)  # one answer each with a user and without


def test_hostile_arguments_reach_nothing(admin, filled, login):
    before = catalog.dump(filled, A)
    for function in functions(admin):
        catalog.fill(filled, A, B)
        sane = arguments(function, user=None, session=KEY, owner=A)
        for name, kind in function.arguments:
            for hostile in [None, *HOSTILE.get(kind, ())]:
                values = sane | {name: hostile}
                outcome = login.run(user(B), *call(function, values))
                assert not betrays(outcome, A, asked=repr(values)), (function.name, name, hostile, outcome)
                assert outcome.code != "57014", (function.name, name, hostile, "took more than five seconds")
        assert catalog.dump(filled, A) == before, function.name


@pytest.mark.parametrize("actor", [ANON, NOBODY], ids=["anonymous", "no context"])
def test_who_has_no_token_is_refused_everything(admin, filled, login, actor):
    before = catalog.dump(filled, A), catalog.dump(filled, B)
    tried = [("select nextval('llm_memory.sessions_pk_seq')", None)]
    for table in [*tables(admin), *views(admin)]:
        column = table.columns[0].name
        tried += [
            (f"select from {table.name}", None),
            (f"insert into {table.name} default values", None),
            (f"update {table.name} set {column} = {column}", None),
            (f"delete from {table.name}", None),
            (f"truncate {table.name}", None),
        ]
    for function in functions(admin):
        tried.append(call(function, arguments(function, user=A, session=KEY, owner=A)))
    for statement, parameters in tried:
        outcome = login.run(actor, statement, parameters)
        if "truncate" in statement and outcome.code == "42809":
            continue  # a view is nothing to be truncated
        assert outcome.code == DENIED, (statement, outcome)
    assert (catalog.dump(filled, A), catalog.dump(filled, B)) == before


@pytest.mark.parametrize("claims", CLAIMS)
def test_claims_that_do_not_name_the_user_open_nothing(admin, filled, login, claims):
    before = catalog.dump(filled, A)
    actor = Actor("authenticated", claims)
    for table in tenant_tables(admin):
        outcomes = [
            login.run(actor, sql.SQL("select * from {}").format(table.identifier)),
            login.run(actor, sql.SQL("delete from {}").format(table.identifier)),
            login.run(actor, *insert(table, row(table, A))),
        ]
        assert outcomes[2].code is not None, table.name
        assert not any(betrays(outcome, A, asked=A) for outcome in outcomes), (table.name, outcomes)
    assert catalog.dump(filled, A) == before


def test_the_service_sees_everybody_and_its_functions_only_whom_they_name(admin, filled, login):
    for table in [*tenant_tables(admin), *views(admin)]:
        seen = login.run(SERVICE, sql.SQL("select user_id from {} order by 1").format(table.identifier))
        assert seen.rows == [(A,), (B,)], table.name
    before = catalog.dump(filled, A)
    for function in functions(admin):
        catalog.fill(filled, A, B)
        values = arguments(function, user=B, session=KEY, owner=B)
        outcome = login.run(SERVICE, *call(function, values))
        assert not betrays(outcome, A), (function.name, outcome)
        assert catalog.dump(filled, A) == before, function.name
        if function.name not in INTERNAL:
            assert outcome.code is None, (function.name, outcome)


def _unique_keys(connection, table):
    found = connection.execute(
        """select (select json_agg(attname order by place) from unnest(conkey) with ordinality x (number, place)
                   join pg_attribute on attrelid = conrelid and attnum = number)
           from pg_constraint where conrelid = %s::regclass and contype in ('p', 'u') order by contype""",
        [table.name],
    )
    return [key for (key,) in found]
