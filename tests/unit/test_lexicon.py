"""Words as numbers, and what a text gives each of them."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_memory_plugins.lexicon import MOST, TERMS, postings, term, weights
from llm_memory_plugins.ranking import Corpus, bm25


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_term_is_a_dimension_of_a_sparse_vector(stem):
    assert 0 < term(stem) < TERMS
    assert term(stem) == term.__wrapped__(stem)


def test_a_term_is_the_same_in_every_process():
    code = "from llm_memory_plugins.lexicon import term; print(term('memori'), term('日本'))"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [term("memori"), term("日本")] == [int(number) for number in elsewhere] == [183017954, 298221595]


def test_hardly_any_two_stems_are_one_term():
    numbers = {term.__wrapped__(f"stem{n}") for n in range(100_000)}
    assert len(numbers) > 99_980


def test_postings_are_ascending_and_count_what_is_there():
    terms, counts = postings({"cat": 2, "dog": 1, "bird": 3})
    assert list(terms) == sorted(terms)
    assert dict(zip(terms, counts, strict=True)) == {term("cat"): 2, term("dog"): 1, term("bird"): 3}
    assert postings({}) == ((), ())


def test_postings_end_where_stores_do():
    terms, counts = postings({f"stem{n}": 100_000 for n in range(MOST + 10)})
    assert MOST - 10 < len(terms) <= MOST
    assert set(counts) == {32_767}
    assert term(f"stem{MOST - 1}") in terms
    assert term(f"stem{MOST}") not in terms


@pytest.mark.parametrize("length", [0, 1, 10, 50, 2000])
def test_weights_are_those_of_bm25_at_a_fixed_mean_length(length):
    counts = [1, 2, 5, 32_767]
    expected = bm25(np.array([counts], dtype=float), np.array([float(length)]), Corpus(9, 50.0, (1, 1, 1, 1)))[0]
    assert weights(counts, length) == pytest.approx(expected.tolist())
    assert all(0 < weight < 1 for weight in weights(counts, length))
