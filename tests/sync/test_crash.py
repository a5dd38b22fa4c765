"""Sync and its database are killed again and again: nothing is lost, and nothing is done twice without need."""

import pytest

from tests.support import crash_sync


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize("database", ["qdrant", "weaviate"])
def test_after_kills_of_sync_and_of_the_server_every_object_is_there_once(shared, database, monkeypatch):
    monkeypatch.setenv("CLIP_WAIT_FOR_STARTUP", "false")
    monkeypatch.setenv("ASYNC_INDEXING", "true")
    outcome = crash_sync.run(shared / "data" / "photos", database, count=240, kills=4, server_kills=2)
    assert outcome.problems == []
    assert outcome.sync_kills >= 4
    assert outcome.text_kills == 4
    assert outcome.server_kills == outcome.survived == 2
