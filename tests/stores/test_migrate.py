"""Every way to bring a database up to date ends in the same schema, from whatever state it starts in."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from pydantic import SecretStr
from tests.servers import Postgres, bootstrap
from tests.servers.supabase import MODULES, QUIET

from llm_memory_plugins import ConversationBufferMemory
from llm_memory_plugins.errors import StoreUnavailable
from llm_memory_plugins.stores.migrate import migrate, migrations
from llm_memory_plugins.stores.postgres import PostgresTransport
from llm_memory_plugins.stores.sql_memories import SqlVectorIndex
from llm_memory_plugins.stores.sql_transport import SCHEMA_VERSION
from llm_memory_plugins.testing.vector_entries import FIRST, entry, ids, probe, unit

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SQL = ROOT / "sql"
NUMBERED = sorted(SQL.glob("[0-9]*.sql"))
NAMES = [file.stem for file in NUMBERED]
UP_TO_DATE = "the schema is up to date\n"


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def run(*command, **options):
    done = subprocess.run(
        list(map(str, command)), check=False, capture_output=True, text=True, timeout=120, cwd=ROOT, **options
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def llm_memory(url, *options):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LLM_MEMORY_")}
    program = "from llm_memory_plugins.cli import main; main()"
    return run(sys.executable, "-c", program, *options, "--database", url, "migrate", env=environment)


def psql(server, url, *files, settings=()):
    options = [f"--set={setting}" for setting in settings]
    return run(server.bin / "psql", "--no-psqlrc", *options, url, *(f"--file={file}" for file in files))


def all_by_psql(server, url):
    return psql(server, url, SQL / "database_migrations.sql")


def push(url, folder):
    """`supabase db push` of the files, as they are."""
    target = folder / "supabase" / "migrations"
    target.mkdir(parents=True)
    (folder / "supabase" / "config.toml").write_text('project_id = "tests"\n')
    for file in SQL.glob("*.sql"):
        shutil.copy(file, target)
    cli = MODULES / "supabase" / "dist" / "supabase.js"
    options = ["db", "push", "--yes", f"--remote={url}", "--workdir", folder]
    return run(shutil.which("node"), cli, *options, env={**os.environ, **QUIET, "HOME": str(folder)})


def schema(server, url):
    """All that pg_dump knows of our schemas: tables, columns, indexes, policies, functions, owners, grants."""
    schemas = ["--schema=llm_memory", "--schema=public", "--schema=extensions"]
    dumped = run(server.bin / "pg_dump", "--schema-only", *schemas, url)
    assert dumped.code == 0, dumped.err
    return re.sub(r"^\\(un)?restrict .*$", "", dumped.out, flags=re.MULTILINE)  # a word that is new each time


def told(names):
    """What `llm-memory migrate` says of its progress when these are the last ones."""
    return "".join(f"applied {name}, {len(names) - place} left\n" for place, name in enumerate(names, start=1))


def applied(url):
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute("select name from llm_memory.migrations order by version")]


@pytest.fixture(scope="module")
def server():
    """Without any role but the superuser, until the first migration."""
    with Postgres() as server:
        yield server


@pytest.fixture
def url(server):
    return server.create_database("migrate")


@pytest.fixture(scope="module")
def reference(server):
    """What the schema has to be."""
    url = server.create_database("reference")
    assert llm_memory(url).code == 0
    return schema(server, url)


def test_psql_migrates_an_empty_database_and_does_nothing_the_second_time(server, url, reference):
    first = all_by_psql(server, url)
    assert (first.code, first.err) == (0, "")
    assert first.out == "".join(f"applying {name}.sql\n" for name in NAMES) + UP_TO_DATE
    assert schema(server, url) == reference
    assert all_by_psql(server, url) == (0, UP_TO_DATE, "")
    assert llm_memory(url) == (0, UP_TO_DATE, "")
    assert schema(server, url) == reference
    assert all(reference.count(f"CREATE {what} ") > 8 for what in ("TABLE", "INDEX", "POLICY", "FUNCTION"))
    assert "GRANT ALL ON FUNCTION public.append_messages(p_batches text) TO service_role" in reference


def test_llm_memory_migrate_tells_its_progress_and_does_nothing_the_second_time(server, url, reference):
    assert llm_memory(url) == (0, told(NAMES) + UP_TO_DATE, "")
    assert schema(server, url) == reference
    assert llm_memory(url) == (0, UP_TO_DATE, "")
    assert all_by_psql(server, url) == (0, UP_TO_DATE, "")
    assert schema(server, url) == reference
    assert applied(url) == [name.partition("_")[2] for name in NAMES]


def test_the_files_one_by_one_make_the_same_schema(server, url, reference):
    for file in NUMBERED:
        assert psql(server, url, file, settings=["ON_ERROR_STOP=1"]).code == 0
    assert schema(server, url) == reference


def test_supabase_db_push_makes_the_same_schema(server, url, reference, tmp_path):
    pushed = push(url, tmp_path)
    assert pushed.code == 0, pushed
    assert schema(server, url) == reference
    assert llm_memory(url) == (0, UP_TO_DATE, "")


def test_what_one_way_has_begun_the_other_goes_on_with(server, url, reference):
    for begun in range(1, len(NAMES)):
        url = server.create_database("migrate")
        assert psql(server, url, *NUMBERED[:begun], settings=["ON_ERROR_STOP=1"]).code == 0
        left = "".join(f"applying {name}.sql\n" for name in NAMES[begun:])
        assert all_by_psql(server, url).out == left + UP_TO_DATE
        assert schema(server, url) == reference
        url = server.create_database("migrate")
        assert psql(server, url, *NUMBERED[:begun], settings=["ON_ERROR_STOP=1"]).code == 0
        assert llm_memory(url).out == told(NAMES[begun:]) + UP_TO_DATE
        assert schema(server, url) == reference


async def migrated(url):
    return [migration.version async for migration, _ in migrate(SecretStr(url))]


def test_of_several_who_migrate_at_once_one_works(server, url, reference):
    async def at_once():
        return await asyncio.gather(*(migrated(url) for _ in range(4)))

    assert sorted(asyncio.run(at_once())) == [[], [], [], [migration.version for migration in migrations()]]
    assert schema(server, url) == reference


def test_psql_and_llm_memory_wait_for_each_other(server, url, reference):
    async def at_once():
        return await asyncio.gather(asyncio.to_thread(all_by_psql, server, url), migrated(url))

    by_psql, by_us = asyncio.run(at_once())
    assert (by_psql.code, by_psql.err) == (0, "")
    assert by_psql.out.count("applying") + len(by_us) == len(NAMES)
    assert schema(server, url) == reference


def test_databases_of_a_new_server_can_be_migrated_at_once(reference):
    """The roles are made once for all of them."""
    with Postgres() as server:
        urls = [server.create_database(f"migrate_{number}") for number in range(4)]

        async def at_once():
            await asyncio.gather(*map(migrated, urls))

        asyncio.run(at_once())
        assert all(schema(server, url) == reference for url in urls)


IN_THE_WAY = """create function public.page_messages(text, text default null, bigint default 0, integer default 1000)
                returns json language sql return '[]'::json"""


def test_a_migration_that_fails_is_undone_and_the_next_run_goes_on(server, url, reference):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(IN_THE_WAY)
        failed = llm_memory(url)
        assert (failed.code, failed.out) == (1, f"applied {NAMES[0]}, {len(NAMES) - 1} left\n")
        assert failed.err == (
            f"error: migration {NAMES[1]} failed and was undone: "
            'function "page_messages" already exists with same argument types\n'
        )
        assert applied(url) == ["schema"]
        assert "append_messages" not in schema(server, url)
        connection.execute("drop function public.page_messages")
    assert llm_memory(url) == (0, told(NAMES[1:]) + UP_TO_DATE, "")
    assert schema(server, url) == reference


def test_psql_migrates_as_a_whole_or_not_at_all(server, url, reference):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(IN_THE_WAY)
        before = schema(server, url)
        failed = all_by_psql(server, url)
        assert failed.code == 3
        assert 'function "page_messages" already exists' in failed.err
        assert UP_TO_DATE not in failed.out
        assert schema(server, url) == before
        connection.execute("drop function public.page_messages")
    assert all_by_psql(server, url).code == 0
    assert schema(server, url) == reference


def as_login(url, name, password):
    host = urlsplit(url).netloc.rpartition("@")[2]
    return urlunsplit(urlsplit(url)._replace(netloc=f"{name}:{password}@{host}"))


@pytest.fixture
def visitor(url):
    """A login without any rights."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create role visitor login password 'visitor'")
        yield as_login(url, "visitor", "visitor")
        connection.execute("drop role visitor")


def test_a_login_without_rights_is_told_so(url, visitor):
    failed = llm_memory(visitor)
    said = f"error: migration {NAMES[0]} failed and was undone: permission denied for database migrate\n"
    assert failed == (1, "", said)
    assert llm_memory(url).code == 0
    said = "error: this login may not migrate: it cannot read llm_memory.migrations\n"
    assert llm_memory(visitor) == (1, "", said)


def test_an_owner_who_is_no_superuser_can_migrate_a_new_server():
    with Postgres() as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("create role owner login createrole bypassrls password 'owner'")
            connection.execute("create database owned owner owner")
        admin = server.database_url("owned")
        with psycopg.connect(admin, autocommit=True) as connection:  # which only a superuser may
            connection.execute("create schema extensions authorization owner")
            connection.execute("create extension vector schema extensions")
        assert llm_memory(as_login(admin, "owner", "owner")).code == 0
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute("alter role authenticator login password 'authenticator'")
        asyncio.run(remember(as_login(admin, "authenticator", "authenticator")))


async def remember(url):
    async with ConversationBufferMemory({"database_url": url, "user_id": "u"}) as memory:
        await memory.store({"session_id": "s", "role": "user", "content": "hello"})
        assert [m.content for m in (await memory.get_context({"session_id": "s"})).messages] == ["hello"]


SECRETS = {
    "wrong password": "postgresql://postgres:{}@127.0.0.1:{port}/postgres",
    "unknown user": "postgresql://somebody:{}@127.0.0.1:{port}/postgres",
    "nobody there": "postgresql://postgres:{}@127.0.0.1:1/postgres",
    "no such host": "postgresql://postgres:{}@nowhere.invalid/postgres",
    "unescaped @": "postgresql://postgres:x@{}@127.0.0.1:{port}/postgres",
    "unescaped /": "postgresql://127.0.0.1:{}/x@127.0.0.1:{port}/postgres",
    "unescaped %": "postgresql://postgres:{}%zz@127.0.0.1:{port}/postgres",
    "unescaped blank": "postgresql://postgres:{} x@127.0.0.1:{port}/postgres",
    "port that is none": "postgresql://postgres:{}@127.0.0.1:x/postgres",
    "unknown option": "postgresql://postgres:{}@127.0.0.1:{port}/postgres?passwort={}",
}


@pytest.mark.parametrize("form", SECRETS.values(), ids=SECRETS)
def test_a_url_that_does_not_work_shows_no_secret(server, form):
    url = form.replace("{}", "hush-hush").format(port=server.port)
    failed = llm_memory(url, "--debug")
    assert failed.code == 1
    assert failed.err.splitlines()[-1].startswith("error: ")
    assert "hush" not in failed.out + failed.err

    async def initialize():
        await ConversationBufferMemory({"database_url": url}).initialize()

    with pytest.raises((StoreUnavailable, ValueError)) as error:
        asyncio.run(initialize())
    assert "hush" not in f"{error.value!r} {error.value}"


async def find(url):
    """Store a text and find it, by meaning and by words, with and without an index."""
    transport = PostgresTransport(SecretStr(url))
    await transport.open()
    index = SqlVectorIndex(transport)
    await index.put("u", [entry("hello there"), entry("something else", vectors=False)])
    assert await ids(index, "u", probe("something", near="hello there")) == ["hello there", "something else"]
    (waiting,) = await index.pending()
    assert await index.fill(FIRST, [(waiting, unit(waiting.text))]) == 1
    (nearest,) = (await index.match("u", probe(near="something else", limit=1))).rows
    assert nearest.cosine == pytest.approx(1)
    await transport.close()


@pytest.mark.parametrize("place", ["public", "Vectors of old"])
def test_vectors_may_live_elsewhere_already(server, place):
    made = set()
    for way in (lambda url: all_by_psql(server, url), llm_memory):
        url = server.create_database("migrate")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f'create schema if not exists "{place}"')
            connection.execute(f'create extension vector schema "{place}"')
            connection.execute(f'create table public.documents (id int, embedding "{place}".vector(3))')
            assert way(url).code == 0
            for dimensions in (24, 2001):
                connection.execute("select llm_memory.index_embeddings(%s)", [dimensions])
            where = "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'"
            assert connection.execute(where).fetchone()[0].strip('"') == place
            connection.execute("alter role authenticator login password 'authenticator'")
        asyncio.run(find(as_login(url, "authenticator", "authenticator")))
        made.add(schema(server, url))
    assert len(made) == 1


def test_an_extension_that_is_too_old_is_told_of(server, url):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create extension vector")
        connection.execute("update pg_extension set extversion = '0.7.4' where extname = 'vector'")
    failed = llm_memory(url)
    assert failed.code == 1
    assert "pgvector 0.8 or newer is needed: alter extension vector update" in failed.err


def test_an_engine_on_a_database_without_the_schema_names_the_remedy():
    with Postgres() as server:
        url = server.create_database("migrate")

        async def initialize():
            async with ConversationBufferMemory({"database_url": url}):
                pass

        steps = [lambda file=file: psql(server, url, file) for file in NUMBERED[:-1]]
        for step in (lambda: bootstrap(url), *steps, lambda: llm_memory(url)):
            with pytest.raises(StoreUnavailable, match="run `llm-memory migrate`"):
                asyncio.run(initialize())
            step()
        asyncio.run(initialize())


def test_all_files_are_numbered_named_by_the_psql_file_and_known_to_the_code():
    assert [int(name[:4]) for name in NAMES] == list(range(1, SCHEMA_VERSION + 1))
    assert [f"{migration.version:04}_{migration.name}" for migration in migrations()] == NAMES
    text = (SQL / "database_migrations.sql").read_text()
    assert re.findall(r"^ +\\ir (\w+)\.sql$", text, re.MULTILINE) == NAMES
    assert re.findall(r":applied < (\d+)", text) == [str(migration.version) for migration in migrations()]


def test_an_installed_package_finds_the_files_that_come_with_it(tmp_path):
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source in build["packages"]:
        shutil.copytree(ROOT / source, tmp_path / Path(source).name, ignore=shutil.ignore_patterns("__pycache__"))
    for source, target in build["force-include"].items():
        shutil.copytree(ROOT / source, tmp_path / target)
    program = "import json; from llm_memory_plugins.stores import migrate as m; "
    program += "print(json.dumps([str(m.folder()), [x.sql for x in m.migrations()]]))"
    done = run(sys.executable, "-c", program, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.code == 0, done.err
    folder, texts = json.loads(done.out)
    assert Path(folder).is_relative_to(tmp_path)
    assert texts == [file.read_text() for file in NUMBERED]
