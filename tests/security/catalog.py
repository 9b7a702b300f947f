"""What there is in a migrated database, read from PostgreSQL's own catalog, so that nothing new can be forgotten.

Rows and arguments are made up from names and types. All users have the same keys, and the same numbers, everywhere: a
query that leaves out the user finds somebody else's rows. Whatever else is text holds the user's secret.
"""

import json
from graphlib import TopologicalSorter
from typing import NamedTuple

import psycopg
import pytest
from psycopg import sql

OURS = ("llm_memory", "public")
KEY = "the same for everybody"
NOW = "2026-03-01T12:00:00+00:00"
LATER = "2099-01-01T00:00:00+00:00"
NOBODYS = {"llm_memory.migrations"}  # tables without users, which nobody has any right to
EVERYBODYS = {"llm_memory.store"}  # tables without users, which all may read and the service may update

SAMPLES = {  # of a column's type, where it is no part of a key
    "text": "{secret}",
    "_text": "{{{secret}}}",
    "json": '{{"of": "{secret}"}}',
    "jsonb": '{{"of": "{secret}"}}',
    "int4": "1",
    "int8": "1",
    "_int4": "{{1}}",
    "_int2": "{{1}}",
    "float4": "1",
    "float8": "1",
    "bool": "false",
    "timestamptz": NOW,
    "vector": "[1,2,3]",
    "sparsevec": "{{1:1}}/1000000000",
}
KEYS = {"text": KEY, "int4": "1", "int8": "1"}
SAID = {"role": "user", "covered_seq": "0"}  # columns in which only this makes sense


class Column(NamedTuple):
    name: str
    type: str


class Table(NamedTuple):
    name: str
    columns: tuple[Column, ...]
    keys: frozenset  # of its primary key, unique constraints and references
    parents: frozenset  # tables it refers to

    @property
    def identifier(self):
        return sql.Identifier(*self.name.split("."))


class Function(NamedTuple):
    name: str
    arguments: tuple[tuple[str, str], ...]  # name and type


def _rows(connection, query):
    # Our own schemas, without what belongs to an extension.
    return connection.execute(query, {"ours": list(OURS)}).fetchall()


def tables(connection, kinds="rp"):
    """All tables; with kinds="v" all views."""
    found = _rows(
        connection,
        f"""
        select format('%%s.%%s', nspname, relname),
               (select json_agg(json_build_array(attname, typname) order by attnum) from pg_attribute
                join pg_type t on t.oid = atttypid where attrelid = c.oid and attnum > 0 and not attisdropped),
               (select coalesce(json_agg(distinct attname), '[]') from pg_constraint k join pg_attribute
                on attrelid = c.oid and attnum = any (conkey) where conrelid = c.oid and contype in ('p', 'u', 'f')),
               (select coalesce(json_agg(distinct confrelid::regclass::text), '[]') from pg_constraint
                where conrelid = c.oid and contype = 'f' and confrelid <> c.oid)
        from pg_class c join pg_namespace n on n.oid = relnamespace
        where nspname = any (%(ours)s) and relkind = any (string_to_array('{",".join(kinds)}', ','))
          and not exists (select from pg_depend
                          where classid = 'pg_class'::regclass and objid = c.oid and deptype = 'e')
        order by 1""",
    )
    return [Table(n, tuple(Column(*c) for c in columns), frozenset(k), frozenset(p)) for n, columns, k, p in found]


def views(connection):
    return tables(connection, "vm")


def tenant_tables(connection):
    """Tables with users' rows, those first that others refer to."""
    known = {table.name: table for table in tables(connection) if table.name not in NOBODYS | EVERYBODYS}
    for table in known.values():
        if "user_id" not in {column.name for column in table.columns}:
            pytest.fail(f"{table.name} has no column user_id: give it one, or name it in NOBODYS or EVERYBODYS")
    order = TopologicalSorter({name: table.parents for name, table in known.items()}).static_order()
    return [known[name] for name in order]


def functions(connection):
    found = _rows(
        connection,
        """
        select format('%%s.%%s', nspname, proname),
               (select coalesce(json_agg(json_build_array(coalesce(proargnames[place], '$' || place),
                                                          format_type(type, null)) order by place), '[]')
                from unnest(proargtypes) with ordinality as x (type, place))
        from pg_proc p join pg_namespace n on n.oid = pronamespace
        where nspname = any (%(ours)s)
          and not exists (select from pg_depend where classid = 'pg_proc'::regclass and objid = p.oid and deptype = 'e')
        order by 1, p.oid""",
    )
    return [Function(name, tuple(map(tuple, arguments))) for name, arguments in found]


def secret(user):
    return f"secret of {user}"


def row(table, user):
    """A row of the user's, by column."""
    made = {}
    for column in table.columns:
        by_type = KEYS if column.name in table.keys else SAMPLES
        if column.name == "user_id":
            made[column.name] = user
        elif column.name in SAID:
            made[column.name] = SAID[column.name]
        elif column.name == "session_id":  # of where something comes from, too
            made[column.name] = KEY
        elif column.type in by_type:
            made[column.name] = by_type[column.type].format(secret=secret(user))
        else:
            pytest.fail(
                f"say in SAMPLES or KEYS of {__name__} what {table.name}.{column.name} may hold ({column.type})"
            )
    return made


def insert(table, values, then=""):
    """The statement that inserts a row, and its parameters."""
    query = sql.SQL("insert into {} ({}) overriding system value values ({}) {}").format(
        table.identifier,
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join(sql.Placeholder() * len(values)),
        sql.SQL(then),
    )
    return query, list(values.values())


def fill(url, *users):
    """Empty every table and give each of the users one row in each."""
    with psycopg.connect(url) as connection:
        everything = tenant_tables(connection)
        names = sql.SQL(", ").join(table.identifier for table in everything)
        connection.execute(sql.SQL("truncate {} restart identity").format(names))
        for table in everything:
            for user in users:
                connection.execute(*insert(table, row(table, user)))
        # The next session, or passage, is not to get the number of these.
        connection.execute("select setval('llm_memory.sessions_pk_seq', 1000)")
        connection.execute("select setval('llm_memory.passages_pk_seq', 1000)")


def dump(url, user):
    """Everything there is of a user, by table."""
    query = sql.SQL("select to_jsonb(t)::text from {} t where user_id = %s order by 1")
    with psycopg.connect(url) as connection:
        return {
            table.name: connection.execute(query.format(table.identifier), [user]).fetchall()
            for table in tenant_tables(connection)
        }


def batches(user, session, owner):
    """What `append_messages` takes: one new message, and one whose id the session has already."""
    batch = {"session_id": session, "messages": messages(owner)}
    return json.dumps([batch if user is None else batch | {"user_id": user}])


def messages(owner):
    """One that is new, and one whose id the session has already."""
    said = {"role": "user", "content": secret(owner), "created_at": NOW, "tokens": 1, "tokenizer": "t"}
    return [said | {"id": "new"}, said | {"id": KEY}]


def memories(owner):
    """What `put_memories` takes: a record that is new, and one whose id the user has already."""
    record = {"content": secret(owner), "metadata": {}, "extra": "{}", "importance": 0, "created_at": NOW}
    record |= {"revision": 0, "tokenizer": "t", "spans": [[0, 1]], "session_id": KEY}
    part = {"number": 0, "start": 0, "stop": 1, "thread": f"s{KEY}", "length": 1, "tokens": 1, "telling": 0}
    part |= {"terms": [1, 2], "counts": [1, 1], "awaits": False, "embedder": KEY}
    ids = ("new", KEY)
    return {
        "p_records": [record | {"id": name} for name in ids],
        "p_parts": [part | {"id": name, "record": place} for place, name in enumerate(ids, start=1)],
        "p_weights": ["{1:0.5,2:0.5}/1000000000"] * 2,
        "p_vectors": ["[1,2,3]", "[1,2,4]"],
    }


NODE = {"level": 0, "from_seq": 1, "to_seq": 1, "lines": [], "tokens": 1, "tokenizer": "t", "model": "m"}


def arguments(function, *, user, session, owner):
    """What to call a function with, by name.

    Args:
        function: Which.
        user, session: Whom and what the call names; None where it does not.
        owner: Whose claim it holds, and whose row it brings along.
    """
    values = {
        "p_user_id": user,
        "p_session_id": session,
        "p_after_user": "",
        "p_after_session": "",
        "p_batches": batches(user, session, owner),
        "p_messages": json.dumps(messages(owner)[:1]),
        "p_hot": False,
        "p_kind": "turns",
        "p_size": 10,
        "p_since": NOW,
        "p_max_tokens": 1000,
        "p_after": 0,
        "p_limit": 100,
        "p_before": LATER,
        "p_finest": 64,
        "p_holder": secret(owner),
        "p_now": NOW,
        "p_until": LATER,
        "p_namespace": KEY,
        "p_key": KEY,
        "p_keys": json.dumps([KEY, "unheard of"]),
        "p_items": json.dumps([{"key": key, "body": secret(owner), "encoding": "json"} for key in (KEY, "new")]),
        "p_by": "1",
        "p_one": "1",
        "p_other": "1",
        "p_expires_at": LATER,
        "p_prefix": "",
        "p_end": None,
        "p_after_key": None,
        "p_node": json.dumps(NODE | {"model_tokens": 0, "created_at": NOW}),
        **{name: json.dumps(value) for name, value in memories(owner).items()},
        "p_preceding": 0,
        "p_where": json.dumps({"source": secret(owner), "session_id": session, "until": LATER, "path": "1 == 1"}),
        "p_probes": json.dumps([[KEY, "[1,2,3]"]]),
        "p_terms": "[1, 2]",
        "p_words": [1, 2],
        "p_passages": [1],
        "p_among": None,
        "p_sign": 1,
        "p_awaits": [False],
        "p_tokens": [1],
        "p_tellings": [0.5],
        "p_embedder": KEY,
        "p_vector": "[1,2,3]",
        "p_allowed": None,
        "p_passed": [],
        "p_query": "{1:1}/1000000000",
        "p_dimensions": 3,
        "p_embeddings": json.dumps([{"user_id": user, "passage": 1, "vector": "[1,2,3]"}]),
        "which": "llm_memory.messages",
        "session": owner,  # its row, as far as the caller can see it
    }
    for name, _ in function.arguments:
        if name not in values:
            pytest.fail(f"say in `arguments` of {__name__} what {function.name} takes as {name}")
    return {name: values[name] for name, _ in function.arguments}


def call(function, values):
    """The statement that calls a function, and its parameters."""
    given = []
    for name, kind in function.arguments:
        value = f"%({name})s::{kind}"
        if kind == "llm_memory.sessions":
            value = f"(select s from llm_memory.sessions s where s.user_id = %({name})s)"
        given.append(f"{name} => {value}")
    return f"select {function.name}({', '.join(given)})", values
