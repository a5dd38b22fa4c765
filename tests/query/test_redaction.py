"""Redaction: no printed or recorded text holds a user, a password or a signature."""

import pytest

from cir_vectorizer.redaction import cause, printable, without_credentials, without_user


@pytest.mark.parametrize(
    "url",
    [
        "s3://KEY:SECRET@bucket/a.csv",
        "http://SECRET@host:8080/a?x=1",
        "http://me:SECRET@1@host/a",
        "qdrant://KEY SECRET@host/shop",
        "see http://me:SECRET@host/a and http://host/b",
    ],
)
def test_user_and_password_go_and_the_place_stays(url):
    shown = without_user(url)
    assert "SECRET" not in shown
    assert "KEY" not in shown
    assert ("bucket" if "bucket" in url else "host") in shown


def test_a_signature_in_the_query_goes_too():
    assert without_credentials("https://me:x@host/a.csv?X-Amz-Signature=SECRET") == "https://host/a.csv"
    said = cause(OSError("Cannot reach https://me:x@host/a.csv?sig=SECRET now\nsecond line"))
    assert said == "cannot reach https://host/a.csv now"


def test_a_name_that_is_not_utf8_can_be_printed():
    assert printable("a\udcff.jpg") == "a?.jpg"
    assert printable("é.jpg") == "é.jpg"
