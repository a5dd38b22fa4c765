"""Words for hybrid search are those that a reader of the page would see, not HTML's."""

from cir_vectorizer.collections import texts


def test_the_keywords_of_a_payload_have_no_html():
    payload = {
        "body": "<p>Red &amp; white <strong>dress</strong></p>",
        "more": {"tags": ["<i>new</i>", "a < b"]},
        "n": 1,
    }
    assert [" ".join(text.split()) for text in texts(payload)] == ["Red & white dress", "new", "a < b"]
