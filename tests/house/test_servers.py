"""The servers the other tests stand on: they are what they claim to be, and come back after a kill."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from tests.servers import GivenPostgres, GivenRedis, Postgres, Proxy, Redis, SupabaseApi, advisors, bootstrap

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NOTES = """
create table notes (id int primary key, user_id text not null);
alter table notes enable row level security;
create policy own on notes to authenticated using ((select auth.uid())::text = user_id);
grant select on notes to authenticated;
create table careless (id int);
grant select on careless to anon;
create schema hidden;
create table hidden.careless (id int);
grant select on hidden.careless to anon;
"""
IDS = {"a": str(uuid.UUID(int=10)), "b": str(uuid.UUID(int=11))}


@pytest.fixture
def own_postgres(postgres):
    return postgres.create_database("servers")


def client(url, **options):
    return redis.Redis.from_url(
        url, socket_timeout=0.5, retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0), **options
    )


def test_postgres_has_vectors(postgres, own_postgres):
    with psycopg.connect(own_postgres) as connection:
        assert connection.info.server_version // 10000 == 18 or isinstance(postgres, GivenPostgres)
        connection.execute("create extension vector")
        assert connection.execute("select '[1,2]'::vector <-> '[1,4]'::vector").fetchone() == (2,)
        assert connection.execute("show fsync").fetchone() == ("on",)


def test_postgres_asks_for_the_password():
    with Postgres() as server, pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url.replace(":postgres-of", ":no-postgres-of"))


def test_postgres_keeps_what_was_committed_through_kills():
    with Postgres() as server:
        for number in range(3):
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute("create table if not exists kept (number int)")
                connection.execute("insert into kept values (%s)", [number])
                members = psutil.Process(server.pid).children(recursive=True)
                server.kill()
                assert not any(alive(member.pid) for member in members)
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(server.url)
            server.restart()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("select array_agg(number order by number) from kept").fetchone() == ([0, 1, 2],)


def test_a_stopped_postgres_says_nothing_until_it_goes_on():
    with Postgres() as server, psycopg.connect(server.url) as connection:
        server.stop()
        try:
            connection.pgconn.send_query(b"select 1")
            time.sleep(0.2)
            connection.pgconn.consume_input()
            assert connection.pgconn.is_busy()
        finally:
            server.cont()
        assert connection.pgconn.get_result().get_value(0, 0) == b"1"
        while connection.pgconn.get_result():
            pass


def test_redis_is_the_oldest_supported(redis_server):
    with client(redis_server.url) as connection:
        assert connection.info("server")["redis_version"].startswith("6.2.") or isinstance(redis_server, GivenRedis)


def test_valkey_is_the_newest_supported(valkey_server):
    with client(valkey_server.url) as connection:
        assert connection.info("server")["valkey_version"].startswith("9.")


def test_redis_asks_for_its_password_stops_and_comes_back_empty():
    with Redis(requirepass="secret") as server:
        with client(server.url.replace(":secret@", "")) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with client(server.url) as connection:
            connection.set("key", "value")
            server.stop()
            with pytest.raises(redis.TimeoutError):
                connection.get("key")
            server.cont()
            assert connection.get("key") == b"value"
            server.kill()
            with pytest.raises(redis.ConnectionError):
                connection.get("key")
            server.restart()
            assert connection.get("key") is None


def test_cluster_stores_in_every_node(redis_cluster):
    host, port = redis_cluster.url.removeprefix("redis+cluster://").split(",")[0].split(":")
    cluster = redis.RedisCluster(host, int(port))
    try:
        assert cluster.cluster_info(target_nodes="random")["cluster_state"] == "ok"
        for number in range(30):
            cluster.set(f"key{number}", number)
        assert all(cluster.get(f"key{number}") == b"%d" % number for number in range(30))
        assert all(int(node.call("DBSIZE")) > 0 for node in redis_cluster.nodes)
    finally:
        cluster.close()


def test_sentinels_name_the_new_master(redis_sentinel):
    assert redis_sentinel.url.endswith("/mymaster/0")
    sentinel = redis.Sentinel([("127.0.0.1", s.port) for s in redis_sentinel.sentinels], socket_timeout=1)
    try:
        assert sentinel.discover_master("mymaster") == ("127.0.0.1", redis_sentinel.master.port)
        new = redis_sentinel.failover()
        assert sentinel.discover_master("mymaster") == ("127.0.0.1", new.port)
        redis_sentinel.restart()
        assert sentinel.discover_master("mymaster") == ("127.0.0.1", redis_sentinel.master.port)
    finally:
        for connection in sentinel.sentinels:
            connection.close()


def test_proxy_counts_delays_freezes_and_cuts():
    with Redis() as server, Proxy(server.url) as proxy, client(proxy.url) as connection:
        connection.ping()
        proxy.reset()
        connection.ping()
        assert proxy.round_trips == 1
        pipeline = connection.pipeline(transaction=False)
        for number in range(100):
            pipeline.set(str(number), "x" * 10000)
        pipeline.execute()
        assert connection.dbsize() == 100
        begun = time.perf_counter()
        proxy.latency = 0.05
        connection.ping()
        assert time.perf_counter() - begun >= 0.1
        proxy.latency = 0
        proxy.freeze()
        with pytest.raises(redis.TimeoutError):
            connection.ping()
        proxy.thaw()
        assert connection.ping()
        proxy.cut()
        with pytest.raises(redis.ConnectionError):
            connection.ping()
        proxy.heal()
        assert connection.ping()


def test_supabase_api_shows_each_user_their_own(own_postgres):
    bootstrap(own_postgres)
    with psycopg.connect(own_postgres) as connection:
        connection.execute(NOTES)
        connection.execute("insert into notes values (1, %s)", [IDS["a"]])
    with SupabaseApi(own_postgres) as api:

        def notes(key=api.anon_key, user=None):
            headers = {"apikey": key} | ({"Authorization": f"Bearer {api.token(IDS[user])}"} if user else {})
            request = urllib.request.Request(f"{api.url}/rest/v1/notes?select=id", headers=headers)
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.read().decode().replace(" ", "")

        for _ in range(2):
            assert [notes(user="a"), notes(user="b"), notes()] == ['[{"id":1}]', "[]", "[]"]
            assert notes(api.service_key) == '[{"id":1}]'
            api.restart()
        with pytest.raises(urllib.error.HTTPError, match="401"):
            notes("some other key")
        api.kill()
        with pytest.raises(urllib.error.URLError):
            notes()


def test_advisors_look_into_the_exposed_schemas(own_postgres):
    bootstrap(own_postgres)
    with psycopg.connect(own_postgres) as connection:
        connection.execute(NOTES)

    def unguarded(*schemas):
        found = advisors(own_postgres, schemas)
        return {f["metadata"]["schema"] for f in found if f["name"] == "rls_disabled_in_public"}

    assert unguarded("public") == {"public"}
    assert unguarded("public", "hidden") == {"public", "hidden"}


SESSION = """
import time
from tests.servers import Postgres, Redis
servers = [Postgres().start(), Redis().start()]
servers[1].stop()
print(*(server.pid for server in servers), *(server.folder for server in servers), flush=True)
time.sleep(60)
"""


def alive(pid):
    try:
        return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_no_server_outlives_its_session(ending):
    session = subprocess.Popen(
        [sys.executable, "-c", SESSION], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with session:
        *pids, postgres_folder, redis_folder = session.stdout.readline().split()
        os.kill(session.pid, ending)
    deadline = time.monotonic() + 10
    while (
        any(psutil.pid_exists(int(pid)) for pid in pids)
        or Path(postgres_folder).exists()
        or Path(redis_folder).exists()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)
