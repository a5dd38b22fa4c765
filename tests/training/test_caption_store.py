"""Captions kept in a temporary file instead of in memory."""

import pytest

from cir_vectorizer_trainer.captions.store import CaptionStore, digest_of_order, digest_of_set

CAPTIONS = [f"a {word} {number}" for number in range(50) for word in ("mug", "赤いドレス", "mug", "😍")]
UNIQUE = list(dict.fromkeys(CAPTIONS))


def test_a_store_reads_like_the_list_without_duplicates() -> None:
    store = CaptionStore(iter(CAPTIONS))
    assert list(store) == UNIQUE
    assert store[-1] == UNIQUE[-1]
    assert store[3:60:7] == UNIQUE[3:60:7]
    with pytest.raises(IndexError):
        store[len(UNIQUE)]


def test_a_store_of_nothing_is_empty() -> None:
    assert list(CaptionStore([])) == []


def test_digests_tell_other_captions_and_another_order() -> None:
    store, turned, fewer = (CaptionStore(captions) for captions in (UNIQUE, UNIQUE[::-1], UNIQUE[:-1]))
    assert digest_of_set(store) == digest_of_set(turned) != digest_of_set(fewer)
    assert digest_of_order(store) == digest_of_order(CaptionStore(CAPTIONS)) != digest_of_order(turned)
