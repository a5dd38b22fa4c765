"""Fixtures that several test files use."""

import pytest

from tests.indexing import draw


@pytest.fixture(scope="session")
def tiny():
    """The packaged model."""
    import cir_vectorizer

    return cir_vectorizer.load("tiny", "cpu")


@pytest.fixture
def photos(tmp_path):
    """A folder of five pictures, two of them in a folder inside."""
    folder = tmp_path / "photos"
    for i, name in enumerate(["a.jpg", "b.png", "c.webp", "inner/d.gif", "inner/e.bmp"]):
        draw(folder / name, i)
    return folder


@pytest.fixture
def shop(tmp_path):
    """An embedded collection, not made yet."""
    from cir_vectorizer.collections import open_collection

    collection = open_collection(f"qdrant:{tmp_path}/index/shop")
    yield collection
    collection.close()
