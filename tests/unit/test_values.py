"""Values of key-value memory: serialised, compressed, encrypted and back; patched; shown. What is broken is named."""

import base64
import json
import os
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.unit.test_codec import VALUES, same

from llm_memory_plugins import keyvalue_boundary as door
from llm_memory_plugins.errors import ConfigError, InvalidInput, StoreUnavailable
from llm_memory_plugins.key_values import SealedValue, Space
from llm_memory_plugins.sealing import Sealer
from llm_memory_plugins.types import ContextRequest
from llm_memory_plugins.values import LAST, add, end_of_prefix, merge_patch, shown

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HERE = Space("u", "n")
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
PLAIN_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def secret():
    return SecretStr(base64.b64encode(os.urandom(32)).decode())


KEY, NEWER = secret(), secret()
SEALERS = {
    "json": Sealer(),
    "json+zstd": Sealer(compress_above=1),
    "json+aes": Sealer(encryption_keys=[KEY]),
    "json+zstd+aes": Sealer(compress_above=1, encryption_keys=[KEY]),
}


def held(encoding, body, key="k"):
    return SealedValue(key, body, encoding, 1, NOW, NOW)


@pytest.mark.parametrize("sealer", SEALERS.values(), ids=SEALERS)
@given(value=VALUES)
def test_values_come_back_as_they_went_in(sealer, value):
    assert same(sealer.open(HERE, held(*sealer.seal(HERE, "k", value))), value)


@pytest.mark.parametrize("options", [{}, {"compress_above": 1}, {"encryption_keys": [KEY]}], ids=str)
@pytest.mark.parametrize("value", [b"", b"\x00\xff", b"a" * 10_000, os.urandom(1000)], ids=len)
def test_without_json_bytes_go_in_and_come_out(options, value):
    sealer = Sealer(as_json=False, **options)
    encoding, body = sealer.seal(HERE, "k", value)
    assert sealer.open(HERE, held(encoding, body)) == value
    assert Sealer(**options).open(HERE, held(encoding, body)) == value, "whatever is written now"
    assert sealer.open(HERE, held(*Sealer(**options).seal(HERE, "k", {"x": 1}))) == {"x": 1}
    for wrong in ("text", 5, None, [1]):
        with pytest.raises(InvalidInput, match=r"^k: .*bytes"):
            sealer.seal(HERE, "k", wrong)


def test_plain_json_stays_readable_and_compression_has_to_be_worth_it():
    assert Sealer().seal(HERE, "k", {"a": "é"}) == ("json", '{"a":"é"}')
    some = Sealer(compress_above=100)
    assert some.seal(HERE, "k", "x" * 97)[0] == "json"
    assert some.seal(HERE, "k", "x" * 98)[0] == "json+zstd"
    noise = os.urandom(300).hex()
    encoding, body = some.seal(HERE, "k", noise)
    assert len(body) < len(noise) if encoding == "json+zstd" else encoding == "json"
    for size in (100, 1000, 100_000):
        for text in ("x" * size, os.urandom(size // 2).hex(), base64.b64encode(os.urandom(size)).decode()):
            assert len(some.seal(HERE, "k", text)[1]) <= len(text) + 2


@pytest.mark.parametrize(
    ("value", "field", "problem"),
    [
        (float("nan"), "k", "finite"),
        ({"a": [1, float("inf")]}, "k.a.1", "finite"),
        ({"a": {1: 2}}, "k.a", "keys must be text"),
        ({"a.b": object()}, "k.a.b", "cannot be stored"),
        ("\ud800", "k", "surrogate"),
        ({"x": "\x00"}, "k.x", "NUL"),
        ("x" * 999, "k", "takes 1,001 bytes; max_value_bytes is 1,000"),
        ("é" * 500, "k", "takes 1,002 bytes"),
        (10**5000, "k", "digits"),
    ],
    ids=lambda part: part if isinstance(part, str) and part.isascii() and part.isprintable() else "",
)
def test_what_cannot_be_stored_is_named(value, field, problem):
    with pytest.raises(InvalidInput, match=problem) as caught:
        Sealer(max_bytes=1000).seal(HERE, "k", value)
    assert caught.value.field == field


def test_too_deep_json_is_named():
    deep = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(InvalidInput, match=r"^k: is nested deeper than 64"):
        Sealer().seal(HERE, "k", deep)
    assert Sealer(max_bytes=1000).seal(HERE, "k", "x" * 998)[0] == "json"


# --- encryption


def test_keys_are_changed_by_putting_the_new_one_first():
    old, both, new = (Sealer(encryption_keys=keys) for keys in ([KEY], [NEWER, KEY], [NEWER]))
    first = held(*old.seal(HERE, "k", "secret"))
    assert "secret" not in first.body
    assert both.open(HERE, first) == "secret"
    second = held(*both.seal(HERE, "k", "secret"))
    assert new.open(HERE, second) == "secret"
    assert first.encoding != second.encoding
    for sealer in (new, Sealer()):
        with pytest.raises(ConfigError, match=r"encryption_keys: .*'k'"):
            sealer.open(HERE, first)


def test_the_same_value_is_never_the_same_ciphertext():
    sealer = SEALERS["json+aes"]
    assert len({sealer.seal(HERE, "k", 1) for _ in range(100)}) == 100


@pytest.mark.parametrize("name", ["json+aes", "json+zstd+aes"])
def test_tampered_and_foreign_ciphertext_is_refused(name):
    sealer = SEALERS[name]
    encoding, body = sealer.seal(HERE, "k", {"limit": 100, "text": "x" * 50})
    data = base64.b64decode(body)
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(StoreUnavailable, match="'k'"):
            sealer.open(HERE, held(encoding, base64.b64encode(changed).decode()))
    for shorter in (b"", data[:5], data[:12], data[:-1], data + b"\0"):
        with pytest.raises(StoreUnavailable, match="'k'"):
            sealer.open(HERE, held(encoding, base64.b64encode(shorter).decode()))
    for space, key in ((Space("v", "n"), "k"), (Space("u", "m"), "k"), (HERE, "l"), (Space("un", ""), "k")):
        with pytest.raises(StoreUnavailable, match=repr(key)):
            sealer.open(space, held(encoding, body, key))
    kind, *steps = encoding.split("+")
    aes = steps[-1]
    for other in ("+".join(["bytes", *steps]), f"{kind}+zstd+{aes}+{aes}", f"{kind}+zstd+zstd+{aes}"):
        with pytest.raises(StoreUnavailable, match="'k'"):
            sealer.open(HERE, held(other, body))


@pytest.mark.parametrize("wrong", ["", "short", "x" * 44, base64.b64encode(b"x" * 31).decode(), "é" * 32, "=" * 44])
def test_a_malformed_encryption_key_is_refused_without_being_told(wrong):
    with pytest.raises(ConfigError, match="openssl rand") as caught:
        Sealer(encryption_keys=[SecretStr(wrong)])
    assert not wrong or wrong not in str(caught.value)


def test_an_encryption_key_may_be_of_either_base64_but_only_once():
    raw = bytes(range(200, 232))
    plain, safe = base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()
    assert plain != safe
    sealed = held(*Sealer(encryption_keys=[SecretStr(plain)]).seal(HERE, "k", 1))
    assert Sealer(encryption_keys=[SecretStr(safe + "\n")]).open(HERE, sealed) == 1
    with pytest.raises(ConfigError, match="twice"):
        Sealer(encryption_keys=[SecretStr(plain), SecretStr(safe)])


def test_no_secret_shows():
    sealer = SEALERS["json+aes"]
    assert KEY.get_secret_value() not in repr(vars(sealer)) + repr(sealer)


# --- what is stored is broken


def zstd(data):
    from llm_memory_plugins.sealing import _zstd

    return base64.b64encode(_zstd().compress(data)).decode()


def test_a_compression_bomb_is_refused_before_it_is_unpacked():
    import tracemalloc

    bomb = zstd(b'"' + b"0" * 300_000_000 + b'"')
    assert len(bomb) < 50_000
    tracemalloc.start()
    with pytest.raises(StoreUnavailable, match=r"'k'.*max_value_bytes"):
        Sealer(max_bytes=1000).open(HERE, held("json+zstd", bomb))
    assert tracemalloc.get_traced_memory()[1] < 40_000_000
    tracemalloc.stop()


BROKEN = [
    *(("json", body) for body in ("", "{", "nul", '{"$decimal":"x"}', '{"$set":[[]]}', '{"$bytes":5}', "[" * 100_000)),
    *(("bytes", body) for body in ("?", "a", "AA=")),
    *(("json+zstd", body) for body in ("", "AAAA", "?", zstd(b"{"), zstd(b"\xff"), zstd(b"x" * 100)[:20])),
    *((encoding, "MQ==") for encoding in ("", "text", "json+", "json+gzip", "+zstd", "pickle", "json+zstd+zstd")),
]


@pytest.mark.parametrize(("encoding", "body"), BROKEN, ids=lambda value: repr(value)[:30])
def test_what_cannot_be_read_is_named(encoding, body):
    with pytest.raises((StoreUnavailable, ConfigError), match="'k'"):
        Sealer().open(HERE, held(encoding, body))


# --- patches, sums, prefixes, prompts


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [  # the table of RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch(target, patch, expected):
    before = json.dumps([target, patch])
    assert merge_patch(target, patch) == expected
    assert json.dumps([target, patch]) == before


@given(PLAIN_JSON, PLAIN_JSON)
def test_a_merge_patch_does_what_the_rfc_writes(target, patch):
    def pseudocode(target, patch):  # section 2, word by word
        if not isinstance(patch, dict):
            return patch
        if not isinstance(target, dict):
            target = {}
        for name, value in patch.items():
            if value is None:
                target.pop(name, None)
            else:
                target[name] = pseudocode(target.get(name), value)
        return target

    merged = merge_patch(target, patch)
    assert same(merged, pseudocode(json.loads(json.dumps(target)), json.loads(json.dumps(patch))))
    assert same(merge_patch(merged, patch), merged) or not isinstance(patch, dict)


@pytest.mark.parametrize("wrong", [True, None, "1", [1], Decimal(1)])
def test_only_numbers_are_added_to(wrong):
    assert add(wrong, 1) is None


def test_sums():
    assert same(add(10**40, 1), 10**40 + 1)
    assert same(add(1, 1.0), 2.0)
    assert add(1e308, 1e308) is add(10**400, 0.5) is None


@given(TEXT, TEXT)
def test_the_end_of_a_prefix_divides_what_begins_with_it(prefix, text):
    end = end_of_prefix(prefix)
    inside = prefix + text
    assert end is None or inside < end
    assert text.startswith(prefix) == (text >= prefix and (end is None or text < end))


def test_ends_of_prefixes_at_the_edges():
    assert end_of_prefix("a\ud7ff") == "a\ue000"
    assert end_of_prefix(f"a{LAST}{LAST}") == "b"
    assert end_of_prefix("") is end_of_prefix(LAST) is None


def test_values_are_shown_as_a_model_reads_them():
    assert shown("dark\nmode") == "dark\nmode"
    assert shown({"a": [1, None, True], "ä": 1.5}) == '{"a": [1, null, true], "ä": 1.5}'
    rich = {
        "at": datetime(2026, 3, 1, 9, tzinfo=UTC), "on": date(2026, 3, 1), "price": Decimal("1.10"),
        "raw": b"\0" * 2048, "id": UUID(int=1), "tags": {"b", "a"}, "pair": (1, 2),
    }  # fmt: skip
    assert json.loads(shown(rich)) == {
        "at": "2026-03-01T09:00:00+00:00", "on": "2026-03-01", "price": "1.10", "raw": "(2,048 bytes)",
        "id": "00000000-0000-0000-0000-000000000001", "tags": ["a", "b"], "pair": [1, 2],
    }  # fmt: skip


# --- the door


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"value": 1}, "key"),
        ({"key": "k"}, "value"),
        ({"key": "", "value": 1}, "key"),
        ({"key": 5, "value": 1}, "key"),
        ({"key": "x" * 257, "value": 1}, "key"),
        ({"key": "a\0", "value": 1}, "key"),
        ({"key": "k", "value": 1, "namespace": ""}, "namespace"),
        ({"key": "k", "value": 1, "user_id": 5}, "user_id"),
        ({"key": "k", "value": 1, "ttl": 5}, "ttl"),
        ("text", "value"),
    ],
)
def test_a_bad_item_is_named(item, field):
    with pytest.raises(InvalidInput) as caught:
        door.given_value(item)
    assert caught.value.field == field


def test_names_too_long_for_an_index_are_refused():
    assert door.key("x" * 256, Space("u" * 256, "n" * 256))
    with pytest.raises(InvalidInput, match="takes 3,072 bytes with user and namespace"):
        door.key("🙂" * 256, Space("🙂" * 256, "🙂" * 256))


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), "5", True, 1e300])
def test_a_bad_end_is_refused(ttl):
    with pytest.raises(InvalidInput, match="ttl_seconds"):
        door.expiry(ttl, NOW)
    assert door.expiry(0.5, NOW) == NOW + timedelta(seconds=0.5)
    assert door.expiry(None, NOW) is None


@pytest.mark.parametrize("wrong", ["1", 1.0, True, -1, 2**63])
def test_a_bad_version_is_refused(wrong):
    with pytest.raises(InvalidInput, match="version"):
        door.version(wrong)
    assert (door.version(None), door.version(0), door.version(7)) == (0, 0, 7)


@pytest.mark.parametrize("wrong", [True, "1", None, float("nan"), float("-inf"), 2**63])
def test_only_finite_numbers_are_added(wrong):
    with pytest.raises(InvalidInput, match="by"):
        door.number(wrong)


def test_requests_for_values():
    assert door.values_request(None) == door.values_request({}) == door.ValuesRequest()
    assert door.values_request("u") == door.ValuesRequest(user_id="u")
    asked = ContextRequest(session_id="s", user_id="u", query="q", max_total_tokens=5)
    assert door.values_request(asked) == door.ValuesRequest(user_id="u", max_tokens=5)
    assert door.values_request({"keys": ["b", "a", "b"]}).keys == ("b", "a")
    for wrong, field in (({"keys": "a"}, "keys"), ({"keys": [1]}, "keys.0"), ({"query": "q"}, "query")):
        with pytest.raises(InvalidInput) as caught:
            door.values_request(wrong)
        assert caught.value.field == field
    with pytest.raises(InvalidInput, match="10,001"):
        door.keys(["k"] * 10_001, HERE)
