"""Bring a collection in step with a source: encode what is new or changed, leave the rest alone.

The collection itself records what was done (`SyncRecord`), so a run that was killed is simply started again.
A picture counts as unchanged if its size and modification time match its record; if not, the hash of its bytes decides.
"""

from cir_vectorizer.sync.dry_run import DryRun, dry_run
from cir_vectorizer.sync.prune import PruneRefused
from cir_vectorizer.sync.reembed import SwitchRefused, must_reembed, reembed
from cir_vectorizer.sync.report import Report
from cir_vectorizer.sync.run import BATCH_SIZE, RunOptions, sync
from cir_vectorizer.sync.texts import TextsRefused
from cir_vectorizer.sync.watch import watch

__all__ = [
    "BATCH_SIZE",
    "DryRun",
    "PruneRefused",
    "Report",
    "RunOptions",
    "SwitchRefused",
    "TextsRefused",
    "dry_run",
    "must_reembed",
    "reembed",
    "sync",
    "watch",
]
