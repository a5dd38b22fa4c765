"""The cache with a bound in bytes."""

from cir_vectorizer.engine.cache import ByteCache


def test_the_least_recently_used_value_is_dropped_first():
    cache: ByteCache[str, bytes] = ByteCache(10, len)
    cache.put("a", b"1234")
    cache.put("b", b"5678")
    assert cache.get("a") == b"1234"
    cache.put("c", b"90")
    assert cache.bytes == 10
    cache.put("d", b"x")
    assert "b" not in cache
    assert ("a" in cache, "c" in cache, "d" in cache, cache.bytes) == (True, True, True, 7)


def test_a_value_that_is_there_stays_and_counts_once():
    cache: ByteCache[str, bytes] = ByteCache(10, len)
    cache.put("a", b"1234")
    cache.put("a", b"1234")
    assert cache.bytes == 4


def test_a_value_over_the_budget_is_not_kept():
    cache: ByteCache[str, bytes] = ByteCache(3, len)
    cache.put("a", b"1234")
    assert (cache.get("a"), cache.bytes) == (None, 0)
