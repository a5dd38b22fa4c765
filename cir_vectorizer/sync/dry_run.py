"""A dry run of sync: nothing is written, no picture is decoded, no model is needed."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cir_vectorizer.collections import Collection, CreateOptions, ModelRecord
from cir_vectorizer.query.encoded import DEFAULT_LIMITS
from cir_vectorizer.sources.base import Failure, Source
from cir_vectorizer.sync.compare import Candidate, Comparer, Decision, Known, Outcome, owner_digest
from cir_vectorizer.sync.encode import FAR_WORKERS, read
from cir_vectorizer.sync.prune import PruneRefused, check, leaving
from cir_vectorizer.sync.reembed import beside, check_switch, must_reembed, with_texts
from cir_vectorizer.sync.report import Report
from cir_vectorizer.sync.respelled import Respelled
from cir_vectorizer.sync.run import compare_all, notes_on, prepare
from cir_vectorizer.sync.take_over import theirs_of
from cir_vectorizer.sync.texts import Texts, check_texts, question, texts_of

LINES = 20


@dataclass
class DryRun:
    """The result of a dry run: the report that a run would write, apart from damaged pictures, and the first actions.

    `refusal` says why --prune would remove nothing; None if it would not be refused.
    """

    report: Report
    lines: list[str] = field(default_factory=list)
    more: int = 0
    """Number of lines left out."""
    refusal: str | None = None

    def settle(self, found: Sequence[Respelled]) -> Sequence[Failure]:
        """Count the objects that a run would move to the present spelling of their id."""
        for each in found:
            self.report.moved += len(each.others)
            self.say(f"move     {each.item.name}")
        return ()

    def say(self, line: str) -> None:
        """Add a line; beyond the first `LINES`, only count it."""
        if len(self.lines) < LINES:
            self.lines.append(line)
        else:
            self.more += 1


def dry_run(
    source: Source,
    collection: Collection,
    model: ModelRecord,
    *,
    create: CreateOptions | None = None,
    source_name: str | None = None,
    prune: bool = False,
    yes: bool = False,
    reembed: bool = False,
    take_over: bool = False,
) -> DryRun:
    """Find out what `sync` or `reembed` with the same arguments would do.

    Pictures whose size or time changed are read and hashed but not decoded, so damaged ones only show in a real run.

    Raises:
        SourceError, CollectionError: the source or the collection cannot be read.
        BackboneMismatch: the collection was filled by another backbone, and `reembed` is False.
    """
    made = DryRun(Report(source.name, str(collection.address), str(model)))
    report, expected = made.report, source.count()
    create = create or CreateOptions()
    check_texts(create, take_over)
    asked: str | None = None
    if reembed and (old := must_reembed(collection, model)) is not None:
        check_switch(source, collection)
        create = with_texts(collection, old, create)
        asked = question(collection, old, Texts(create.text_columns))
        collection = beside(collection, model)
        made.say(f"embed everything anew into {collection.address}, then let it take over {report.collection}")
    owner = owner_digest(source_name or source.identity)
    if collection.info() is None:
        texts = Texts(create.text_columns)
        comparer = Comparer(collection, model, owner, Known((), owner), texts=texts)
    else:
        info = prepare(collection, model, create)
        texts = texts_of(collection, info, create.text_columns)
        asked = asked or question(collection, info, texts)
        theirs = theirs_of(collection, info, take_over)
        comparer = Comparer(collection, model, owner, theirs=theirs, settle=made.settle, texts=texts)
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
    report.notes = [*notes_on(source, nothing=not report.total), *([asked] if asked and not yes else [])]
    if prune and comparer.known is not None:
        try:
            check(source, comparer.known, report.total, hidden, yes)
            for _, record in leaving(source, collection, comparer.known):
                report.removed += 1
                made.say(f"remove   {record.path}")
        except PruneRefused as error:
            made.refusal = str(error)
    return made


def _decided(outcome: Outcome) -> Decision | Failure:
    if not isinstance(outcome, Candidate):
        return outcome
    if outcome.known is None:
        return Decision(outcome.item, outcome.change, adopted=outcome.adopted, text=outcome.text)
    found = read(outcome, DEFAULT_LIMITS)
    return found if isinstance(found, Decision | Failure) else Decision(outcome.item, "picture", text=outcome.text)


def _note(made: DryRun, decision: Decision) -> None:
    report = made.report
    setattr(report, decision.counter, getattr(report, decision.counter) + 1)
    if decision.change in report.changes:
        report.changes[decision.change] += 1
    report.texts += decision.must_embed
    if decision.change in ("added", "picture"):
        report.encoded += 1
        made.say(f"{'add' if decision.change == 'added' else 'encode':8} {decision.item.name}")
    elif decision.change in ("payload", "text"):
        made.say(f"{decision.change:8} {decision.item.name}")
