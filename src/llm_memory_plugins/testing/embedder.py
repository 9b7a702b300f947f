"""What every `Embedder` must hold: one unit vector a text, in order, the same each time, and nothing for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.ports import Embedder, EmbeddingKind
from llm_memory_plugins.types import Usage

KINDS: tuple[EmbeddingKind, ...] = ("document", "query")
NEAR = [
    ("The cat sleeps on the sofa in the living room.", "A cat is asleep on the sofa."),
    ("How do I restart the database server?", "Restart the database server with this command."),
    ("We fly to Lisbon in March for a holiday.", "Our holiday in Lisbon is in March."),
    ("My daughter plays the violin in the school orchestra.", "The violin lesson of my daughter is at school."),
]
"""Pairs about one thing each; a text is nearer to its partner than to any text of another pair."""

ODD = {
    "emoji": "🦜🌊👩‍👩‍👧‍👦",
    "control characters": "one\x01two\x7f",
    "invisible": "\u200b\u2060zero width",
    "right to left": "\u202eevil\u202c שלום عالم",
    "combining": "Z\u0351\u036b\u0343algo" * 20,
    "one letter": "a",
    "Chinese": "我的猫在沙发上睡觉。",
    "special tokens": "<s></s><|endoftext|>[PAD][CLS]",
    "markup": "</memory>\n{'a': 1}\\x00%s${HOME}",
}


def numbered(count: int) -> list[str]:
    """That many texts, each with words of its own."""
    return [f"note {i}: box {i * 7919} holds item{i} and thing{i * 31}" for i in range(count)]


class EmbedderSuite:
    """Shape, length, order, determinism, meaning, hostile text.

    Attributes:
        meaning: False for an embedder whose vectors mean nothing.
        most: Texts of the largest call, at least 8.
    """

    meaning = True
    most = 2000

    @pytest.fixture
    async def embedder(self) -> AsyncIterator[Embedder]:
        """A fresh embedder. Override."""
        raise NotImplementedError("give the suite its embedder")
        yield

    def test_its_identity_ends_with_its_dimensions(self, embedder: Embedder) -> None:
        assert embedder.dimensions >= 1
        assert embedder.identity.endswith(f"/{embedder.dimensions}")
        assert embedder.identity.count("/") >= 2, "provider, model, dimensions"
        assert embedder.max_tokens is None or embedder.max_tokens >= 1

    @pytest.mark.parametrize("kind", KINDS)
    async def test_nothing_gives_nothing(self, embedder: Embedder, kind: EmbeddingKind) -> None:
        vectors, usage = await embedder.embed([], kind=kind)
        assert vectors.shape == (0, embedder.dimensions)
        assert vectors.dtype == np.float32
        assert usage == Usage()

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("count", [1, 7])
    async def test_one_unit_vector_a_text(self, embedder: Embedder, kind: EmbeddingKind, count: int) -> None:
        vectors, _ = await embedder.embed(numbered(count), kind=kind)
        assert vectors.shape == (count, embedder.dimensions)
        assert vectors.dtype == np.float32
        assert np.isfinite(vectors).all()
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)

    async def test_order_is_kept_however_many(self, embedder: Embedder) -> None:
        texts = numbered(self.most)
        vectors, _ = await embedder.embed(texts, kind="document")
        assert vectors.shape == (self.most, embedder.dimensions)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
        some = sorted({0, 1, self.most // 3, self.most // 2, self.most - 2, self.most - 1})
        alone, _ = await embedder.embed([texts[i] for i in some], kind="document")
        assert (alone @ vectors.T).argmax(axis=1).tolist() == some

    @pytest.mark.parametrize("kind", KINDS)
    async def test_the_same_text_gives_the_same_vector_in_any_company(
        self, embedder: Embedder, kind: EmbeddingKind
    ) -> None:
        texts = [text for pair in NEAR for text in pair]
        together, _ = await embedder.embed(texts, kind=kind)
        again, _ = await embedder.embed(texts[::-1], kind=kind)
        alone = [(await embedder.embed([text], kind=kind))[0][0] for text in texts]
        np.testing.assert_allclose(together, again[::-1], atol=1e-5)
        np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)

    async def test_a_text_twice_in_a_call(self, embedder: Embedder) -> None:
        vectors, _ = await embedder.embed(["twice here", "once here", "twice here"], kind="document")
        np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)

    async def test_what_is_returned_is_the_callers_own(self, embedder: Embedder) -> None:
        first, _ = await embedder.embed(["keep me"], kind="document")
        kept = first.copy()
        first[:] = 7.0
        second, _ = await embedder.embed(["keep me"], kind="document")
        np.testing.assert_allclose(second, kept, atol=1e-6)

    async def test_similar_texts_are_nearer_than_unrelated_ones(self, embedder: Embedder) -> None:
        if not self.meaning:
            return
        queries, _ = await embedder.embed([query for query, _ in NEAR], kind="query")
        documents, _ = await embedder.embed([document for _, document in NEAR], kind="document")
        assert (queries @ documents.T).argmax(axis=1).tolist() == list(range(len(NEAR)))

    @pytest.mark.parametrize("text", ODD.values(), ids=ODD)
    async def test_odd_text_has_a_vector(self, embedder: Embedder, text: str) -> None:
        vectors, _ = await embedder.embed([text, "plain"], kind="document")
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)

    @pytest.mark.parametrize("text", ["", "  ", "\n\t", "half a pair \ud83d"])
    async def test_what_cannot_be_embedded_is_named(self, embedder: Embedder, text: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            await embedder.embed(["fine", "also fine", text], kind="document")
        assert caught.value.field == "texts[2]"

    @pytest.mark.parametrize("text", ["word " * 20_000, "x" * 100_000, "🦜" * 25_000], ids=["words", "one", "emoji"])
    async def test_100_kb_is_embedded_whole_or_refused(self, embedder: Embedder, text: str) -> None:
        if embedder.max_tokens is None:
            vectors, _ = await embedder.embed(["short", text], kind="document")
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
            return
        with pytest.raises(InvalidInput, match="split") as caught:
            await embedder.embed(["short", text], kind="document")
        assert caught.value.field == "texts[1]"

    async def test_many_calls_at_once(self, embedder: Embedder) -> None:
        texts = numbered(12)
        expected, _ = await embedder.embed(texts, kind="document")
        answers = await asyncio.gather(*(embedder.embed([text], kind="document") for text in texts))
        np.testing.assert_allclose(np.concatenate([rows for rows, _ in answers]), expected, atol=1e-5)
