"""What a run of sync would do: nothing is written, no picture is decoded, no model is needed."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cir_vectorizer.collections import Collection, CreateOptions, ModelRecord, ensure
from cir_vectorizer.errors import BackboneMismatch
from cir_vectorizer.query.encoded import DEFAULT_LIMITS
from cir_vectorizer.sources.base import Failure, Source
from cir_vectorizer.sync.compare import Candidate, Comparer, Known, Outcome, Work, owner
from cir_vectorizer.sync.prune import PruneRefused, check, leaving
from cir_vectorizer.sync.reembed import beside, must_reembed
from cir_vectorizer.sync.report import Report
from cir_vectorizer.sync.run import FAR_WORKERS, compare_all, read

LINES = 20


@dataclass
class Plan:
    """What would be done: the report that a run would write (as far as pictures can be read), and the first lines.

    `refusal` says why nothing would be removed, where that is so.
    """

    report: Report
    lines: list[str] = field(default_factory=list)
    more: int = 0
    """Lines left out."""
    refusal: str | None = None

    def say(self, line: str) -> None:
        """Keep a line, or count it."""
        if len(self.lines) < LINES:
            self.lines.append(line)
        else:
            self.more += 1


def plan(
    source: Source,
    collection: Collection,
    model: ModelRecord,
    *,
    create: CreateOptions | None = None,
    source_name: str | None = None,
    prune: bool = False,
    yes: bool = False,
    reembed: bool = False,
) -> Plan:
    """Tell what `sync` or `reembed` with the same arguments would do.

    Pictures whose size or time changed are read and hashed, none is decoded: a damaged one shows in the run itself.

    Raises:
        SourceError, CollectionError: the source or the collection cannot be read.
        BackboneMismatch: the collection was filled by another backbone, and `reembed` is False.
    """
    made = Plan(Report(source.name, str(collection.address), str(model)))
    report, expected = made.report, source.count()
    if reembed and must_reembed(collection, model):
        collection = beside(collection, model)
        made.say(f"embed everything anew into {collection.address}, then let it take over {report.collection}")
    comparer = Comparer(collection, model, owner(source_name or source.identity))
    if collection.info() is None:
        comparer.known = Known((), comparer.made_by)
    else:
        try:
            ensure(collection, model, create or CreateOptions())
        except BackboneMismatch as error:
            raise BackboneMismatch(f"{error}, or give --reembed to have everything embedded anew") from error
        compare_all(source, collection, comparer, expected, always=prune)
    hidden: list[Failure] = []
    entries = source.items()
    with ThreadPoolExecutor(FAR_WORKERS, "cir-read") as readers:
        while lot := comparer.next_lot(entries):
            for outcome in readers.map(_decided, lot):
                report.total += 1
                if isinstance(outcome, Failure):
                    report.failed.append(outcome)
                    hidden += [outcome] if outcome.hides_entries else []
                else:
                    _note(made, outcome)
    report.skipped = source.skipped
    if prune and comparer.known is not None:
        try:
            check(source, comparer.known, hidden, yes)
            for _, record in leaving(source, collection, comparer.known):
                report.removed += 1
                made.say(f"remove   {record.path}")
        except PruneRefused as error:
            made.refusal = str(error)
    return made


def _decided(outcome: Outcome) -> Work | Failure:
    if not isinstance(outcome, Candidate):
        return outcome
    if outcome.known is None:
        return Work(outcome.item, "added")
    found = read(outcome, DEFAULT_LIMITS)
    return found if isinstance(found, Work | Failure) else Work(outcome.item, "picture")


def _note(made: Plan, work: Work) -> None:
    report = made.report
    setattr(report, work.counter, getattr(report, work.counter) + 1)
    if work.change in report.changes:
        report.changes[work.change] += 1
    if work.change in ("added", "picture"):
        report.encoded += 1
        made.say(f"{'add' if work.change == 'added' else 'encode':8} {work.item.name}")
    elif work.change == "payload":
        made.say(f"payload  {work.item.name}")
