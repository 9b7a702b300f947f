"""The functions of key-value memory read what they are asked for, however much there is and whatever is known of it."""

import json

import psycopg
import pytest

pytestmark = pytest.mark.slow

NOW = "2026-03-01T00:00:00Z"
SIZE = 5_000
ONE = json.dumps([{"key": "k0007", "body": "1", "encoding": "json"}])
CALLS = {
    "read one": ("read_values('u', 'n', %s, %s)", [NOW, '["k0007"]']),
    "read nothing": ("read_values('u', 'n', %s, %s)", [NOW, '["nope"]']),
    "read the newest": ("read_values('u', 'n', %s, null, 10, 1000000)", [NOW]),
    "write one": ("write_values('u', 'n', %s, %s)", [NOW, ONE]),
    "write a new one": ("write_values('u', 'n', %s, %s)", [NOW, ONE.replace("k0007", "new")]),
    "increment": ("increment_value('u', 'n', %s, 'k0008', '1')", [NOW]),
    "list the first": ("list_keys('u', 'n', %s, 'k', 'l', null, 10)", [NOW]),
    "list few of many": ("list_keys('u', 'n', %s, 'k000', 'k001', null, 1000)", [NOW]),
    "list none": ("list_keys('u', 'n', %s, 'j', 'k')", [NOW]),
    "remove one": ("remove_values('u', %s, 'n', %s)", [NOW, '["k0009"]']),
    "prune": ("prune_values(%s)", [NOW]),
}


@pytest.fixture(params=["as it is after migrating", "with statistics"])
def connection(request, database_url):
    with psycopg.connect(database_url, autocommit=True) as opened:
        opened.execute("truncate llm_memory.key_values")
        items = [{"key": f"k{n:04}", "body": "1", "encoding": "json"} for n in range(SIZE)]
        opened.execute("select public.write_values('u', 'n', %s, %s)", [NOW, json.dumps(items)])
        if request.param == "with statistics":
            opened.execute("analyze llm_memory.key_values")
        yield opened
        opened.execute("truncate llm_memory.key_values")


@pytest.mark.parametrize("what", CALLS)
def test_a_call_touches_few_blocks(connection, what):
    call, arguments = CALLS[what]
    with connection.transaction(force_rollback=True):
        for _ in range(2):  # the first one also reads the catalog
            explained = connection.execute(f"explain (analyze, buffers, format json) select public.{call}", arguments)
            plan = explained.fetchone()[0][0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 120
