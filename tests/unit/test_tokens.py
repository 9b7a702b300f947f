"""Counting tokens without a network: tiktoken's files are used where they are, and never fetched."""

import hashlib
import socket

import pytest

from llm_memory_plugins import tokens
from llm_memory_plugins.errors import ConfigError, MissingExtra
from llm_memory_plugins.ports import TokenCounter
from llm_memory_plugins.tokens import EstimatingCounter, TiktokenCounter, counter

ENCODINGS = ["cl100k_base", "o200k_base"]
ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"


@pytest.fixture
def offline(monkeypatch):
    """Every attempt to reach a network is noted, and fails."""
    attempts = []

    def refuse(*address, **_):
        attempts.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return attempts


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The only folder in which tiktoken's files are looked for; empty."""
    tokens._tiktoken.cache_clear()
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(tokens.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    found = tokens.find_spec
    monkeypatch.setattr(tokens, "find_spec", lambda name: None if name == "llama_index" else found(name))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    yield tmp_path
    tokens._tiktoken.cache_clear()


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("é" * 8, 2), ("\n", 1), ("x" * 4001, 1001)]
)
def test_the_estimate_is_four_characters_a_token_rounded_up(text, count):
    assert counter("estimate").count(text) == count


def test_counters_fit_the_port():
    assert isinstance(counter("estimate"), TokenCounter)
    assert counter("estimate").name == "estimate"
    assert isinstance(counter(), TokenCounter)


def test_auto_is_the_estimate_where_no_file_is(folder, offline):
    assert isinstance(counter("auto"), EstimatingCounter)
    assert list(folder.iterdir()) == []
    assert offline == []


@pytest.mark.parametrize("name", ENCODINGS)
def test_an_encoding_without_its_file_is_refused_and_not_fetched(folder, offline, name):
    pytest.importorskip("tiktoken")
    with pytest.raises(ConfigError, match=f"tokenizer='{name}'.*nothing is downloaded.*TIKTOKEN_CACHE_DIR") as error:
        counter(name)
    assert not isinstance(error.value, MissingExtra)
    assert "llama-index-core" in str(error.value)
    assert offline == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ENCODINGS)
def test_without_tiktoken_the_file_is_of_no_use(folder, monkeypatch, name):
    (folder / tokens._CACHED_AS[name]).write_bytes(b"")
    monkeypatch.setitem(tokens._SHA256, name, hashlib.sha256(b"").hexdigest())
    monkeypatch.setattr(tokens, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=f"tokenizer='{name}' needs tiktoken: pip install tiktoken"):
        counter(name)
    assert counter("auto").name == "estimate"


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_damaged_file_is_neither_fetched_again_nor_removed(folder, offline, monkeypatch, name):
    monkeypatch.setattr(pytest.importorskip("tiktoken.registry"), "ENCODINGS", {})
    damaged = folder / tokens._CACHED_AS[name]
    damaged.write_bytes(b"half of the fi")
    with pytest.raises(ConfigError):
        counter(name)
    assert offline == []
    assert damaged.exists()


@pytest.mark.parametrize("name", ENCODINGS)
def test_files_are_looked_for_under_tiktokens_own_names(name):
    address = ADDRESS.format(name)
    assert tokens._CACHED_AS[name] == hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()


def test_folders_are_looked_through_in_tiktokens_own_order(folder, monkeypatch):
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", "/gym")
    assert list(map(str, tokens._cache_folders())) == [str(folder), "/gym", str(folder / "tmp" / "data-gym-cache")]
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert str(next(tokens._cache_folders())) == "/gym"


def bytewise(name="bytes"):
    """A tiny encoding, one token a byte, with a special token."""
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([i]): i for i in range(256)}
    return tiktoken.Encoding(name, pat_str=r"[\s\S]", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 256})


def test_special_tokens_in_a_text_are_plain_text():
    by = TiktokenCounter(bytewise())
    assert by.name == "bytes"
    assert by.count("<|endoftext|>") == len("<|endoftext|>")
    assert by.count("") == 0
    assert by.count("é") == 2


@pytest.mark.parametrize("before", [None, "elsewhere"])
def test_the_environment_is_as_it_was_after_loading(folder, monkeypatch, before):
    tiktoken = pytest.importorskip("tiktoken")
    second = folder / "second"
    second.mkdir()
    (second / tokens._CACHED_AS["o200k_base"]).touch()
    monkeypatch.setitem(tokens._SHA256, "o200k_base", hashlib.sha256(b"").hexdigest())
    monkeypatch.setattr(tokens, "_cache_folders", lambda: iter([folder, second]))
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    if before:
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", before)
    seen = []

    def load(name):
        seen.append((name, tokens.os.environ["TIKTOKEN_CACHE_DIR"]))
        return bytewise(name)

    monkeypatch.setattr(tiktoken, "get_encoding", load)
    assert counter("o200k_base").count("abc") == 3
    assert counter("auto").name == "o200k_base"
    assert seen == [("o200k_base", str(second))], "loaded once"
    assert tokens.os.environ.get("TIKTOKEN_CACHE_DIR") == before


@pytest.mark.parametrize("name", ENCODINGS)
def test_the_real_encoding_where_its_file_is_on_this_machine(name, offline):
    try:
        by = counter(name)
    except ConfigError:
        pytest.skip(f"the file of {name} is not on this machine")
    assert by.name == name
    assert by.count("hello world") == 2
    assert by.count("<|endoftext|>") > 1
    assert offline == []
