"""The circuit breaker, and what URLs name: without a server."""

import subprocess
import sys

import pytest
from pydantic import SecretStr
from tests.servers import Redis

from llm_memory_plugins.errors import ConfigError, MissingExtra, StoreUnavailable
from llm_memory_plugins.stores.redis import Breaker, RedisClient, RedisHotTier
from llm_memory_plugins.stores.redis.keys import tail_key
from llm_memory_plugins.stores.redis.tier import TOMBSTONE_MS
from llm_memory_plugins.testing.hot_tier import seen, tail
from llm_memory_plugins.testing.message_log import ONE
from llm_memory_plugins.types import SessionRef


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(failures=3, delay=1.0, longest=4.0, clock=clock)


def refused(breaker):
    try:
        breaker.admit()
    except StoreUnavailable:
        return True
    return False


def trip(breaker):
    for _ in range(3):
        breaker.failed(probe=breaker.admit())


def test_it_opens_after_failures_in_a_row_only(breaker):
    for _ in range(5):
        breaker.failed(probe=breaker.admit())
        breaker.failed(probe=breaker.admit())
        breaker.succeeded()
    assert not refused(breaker)
    trip(breaker)
    assert refused(breaker)


def test_one_probe_is_let_through_after_the_delay_and_closes_it(breaker, clock):
    trip(breaker)
    clock.now += 0.99
    assert refused(breaker)
    clock.now += 0.02
    assert breaker.admit() is True
    assert refused(breaker), "one"
    breaker.succeeded()
    assert breaker.admit() is False
    trip(breaker)
    clock.now += 1.01
    assert breaker.admit() is True, "the delay is the first one again"


def test_the_delay_doubles_with_each_probe_that_fails_up_to_a_cap(breaker, clock):
    trip(breaker)
    for delay in (1.0, 2.0, 4.0, 4.0, 4.0):
        clock.now += delay - 0.01
        assert refused(breaker)
        clock.now += 0.02
        breaker.failed(probe=breaker.admit())


def test_late_failures_of_calls_from_before_lengthen_nothing(breaker, clock):
    trip(breaker)
    for _ in range(50):
        breaker.failed(probe=False)
    clock.now += 1.01
    assert breaker.admit() is True


def test_a_probe_that_was_cancelled_holds_up_nothing(breaker, clock):
    trip(breaker)
    clock.now += 1.01
    assert breaker.admit() is True
    clock.now += 1.01
    assert breaker.admit() is True


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://localhost", "server"),
        ("redis://:pass@localhost:6380/3?decode_responses=yes&socket_timeout=99", "server"),
        ("rediss://user:pass@example.org:6380/0", "server"),
        ("unix:///run/redis.sock?db=1", "server"),
        ("redis+sentinel://h1:26379,h2/mymaster", "sentinel"),
        ("redis+sentinel://user:p%40ss@h1:26379,[::1]:26380/my%20master/2?sentinel_password=x", "sentinel"),
        ("rediss+sentinel://h1/mymaster", "sentinel"),
        ("redis+cluster://h1:7000,h2:7001", "cluster"),
        ("rediss+cluster://:pass@h1:7000,h2:7001/", "cluster"),
    ],
)
async def test_urls(url, kind):
    client = RedisClient(SecretStr(url))
    await client.open()
    assert repr(client) == f"RedisClient('{kind}')"
    await client.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://:secret@localhost",
        "redis://:secret@localhost:port/0",
        "redis://:secret@localhost?socket_read_size=secret",
        "unix://",
        "redis+sentinel://:secret@h1:26379",
        "redis+sentinel://:secret@/service",
        "redis+sentinel://:secret@h1:x/service",
        "redis+cluster://:secret@",
        "redis+cluster://:secret@h1:7000,,h2:7000",
        "redis+cluster://:secret@h1:7000/3",
        "redis+cluster://:secret@h1:7000?secret=1",
    ],
)
def test_a_bad_url_is_an_error_that_names_the_setting_and_not_the_url(url):
    with pytest.raises(ConfigError, match=r"^redis_url .*redis://host:6379") as caught:
        RedisClient(SecretStr(url))
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_settings_in_the_url_do_not_undo_ours():
    client = RedisClient(SecretStr("redis://localhost/3?decode_responses=yes&socket_connect_timeout=99"), timeout=0.1)
    settings = client._found.driver.connection_pool.connection_kwargs
    assert (settings["db"], settings["decode_responses"], settings["socket_connect_timeout"]) == (3, False, 0.1)
    assert settings["retry"].get_retries() == 0


@pytest.mark.parametrize("url", ["redis+sentinel://a,b/service", "redis+cluster://a,b"])
def test_behind_several_addresses_nothing_is_repeated_either(url):
    client = RedisClient(SecretStr(url), timeout=0.1)
    driver = client._found.driver
    assert (driver.retry if hasattr(driver, "retry") else driver.get_retry()).get_retries() == 0
    for sentinel in client._found.others:
        assert sentinel.get_retry().get_retries() == 0
        assert sentinel.connection_pool.connection_kwargs["socket_timeout"] == 0.1
    assert client._found.deadline == pytest.approx(0.3)


def test_keys_of_pairs_that_join_to_the_same_text_differ():
    refs = [SessionRef(s, u) for s, u in (("c", "a:b"), ("b:c", "a"), ("a:b:c", ""), ("1:a", ""), ("a", "1:"))]
    assert len({tail_key("llmm", ref) for ref in refs}) == len(refs)
    assert tail_key("llmm", SessionRef("s")) == tail_key("llmm", SessionRef("s", ""))
    assert tail_key("llmm", SessionRef("\ud800", "u"))


def test_a_missing_package_names_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtra, match=r"pip install 'llm-memory-plugins\[redis\]'"):
        RedisClient(SecretStr("redis://localhost"))


@pytest.mark.slow
def test_importing_the_tier_imports_no_driver():
    code = "import sys, llm_memory_plugins.stores.redis; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.slow
async def test_a_password_is_used_and_shown_nowhere():
    with Redis(requirepass="hunter2-hunter2") as server:
        client = RedisClient(SecretStr(server.url), timeout=5)
        hot = RedisHotTier(client, ttl_seconds=60)
        await hot.fill(tail(3))
        assert await seen(hot) == 3
        shown = [repr(client), repr(hot), repr(vars(client)), repr(client._found), repr(vars(client._found.driver))]
        shown.append(repr(client._found.driver.connection_pool.connection_kwargs))
        assert not any("hunter2" in text for text in shown)
        wrong = RedisClient(SecretStr(server.url.replace("hunter2-hunter2", "hunter3")))
        with pytest.raises(StoreUnavailable) as caught:
            await wrong.ping()
        assert "hunter" not in str(caught.value)
        await wrong.close()
        await client.close()


@pytest.mark.slow
async def test_a_fill_that_arrives_too_late_is_refused(redis_server):
    """A network may hold a command back for longer than any tombstone lives."""
    client = RedisClient(SecretStr(redis_server.url), timeout=5)
    hot = RedisHotTier(client, ttl_seconds=60, prefix="late")
    await hot.fill(tail(3))
    assert await seen(hot) == 3
    await client.call("DEL", tail_key("late", ONE))
    hot._ahead -= TOMBSTONE_MS / 1000  # as if it had been sent ten seconds ago
    await hot.fill(tail(3))
    assert await seen(hot) is None
    await client.close()
