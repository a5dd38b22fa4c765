"""A benchmark run with a model: the composers' rankings, and the report of their figures."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cir_vectorizer.errors import SourceError
from cir_vectorizer.evaluate import metrics
from cir_vectorizer.evaluate.benchmarks.annotations import first
from cir_vectorizer.evaluate.benchmarks.base import Benchmark, Query, Rankings, Scores, Task
from cir_vectorizer.evaluate.benchmarks.embeddings import Embeddings, Pictures, Progress, embed
from cir_vectorizer.evaluate.benchmarks.ranking import Ranked, composers_of, rank
from cir_vectorizer.evaluate.metrics import Values
from cir_vectorizer.evaluate.report import Comparison, Example, Figures, Report, Row, Shown
from cir_vectorizer.evaluate.sentences import percent

if TYPE_CHECKING:
    from cir_vectorizer.models import Vectorizer

DRAWN = "DRAWN"
"""A file in the dataset's folder that says, in its first line, that its pictures are stand-ins."""
MOST_NAMED = 100
"""Missing pictures that a report names."""
_EXAMPLES, _RESULTS = 4, 5
_CURVE = (1, 2, 3, 4, 5, 10, 15, 20, 25, 30, 40, 50)


@dataclass(frozen=True)
class Run:
    """Rankings of a benchmark by the composers of a model."""

    benchmark: Benchmark
    vectorizer: "Vectorizer"
    pictures: Embeddings
    ranked: Sequence[Ranked]


def run(
    benchmark: Benchmark,
    vectorizer: "Vectorizer",
    composers: Sequence[str] = (),
    counting: Callable[[str], Progress] | None = None,
) -> Run:
    """Rank the galleries of a benchmark by some composers of a model.

    Args:
        composers: their names; all that fit if there are none.
        counting: returns a function that shows progress, given the name of what is counted.

    Raises:
        SourceError: the gallery or all pictures are missing.
        QueryError: the model has no composer of this name.
    """
    chosen = composers_of(vectorizer, benchmark, composers)
    for task in benchmark.tasks:
        if not task.gallery and any(query.gallery is None for query in task.queries):
            of = f" of {task.name}" if task.name else ""
            raise SourceError(
                f"{benchmark.root} has no list of {benchmark.title}'s gallery{of}, nor its pictures; download them too"
            )
    pictures = Pictures(_picture_names(benchmark), benchmark.file, benchmark.view)
    embeddings = embed(pictures, vectorizer, counting("pictures") if counting else None)
    ranked = [
        rank(benchmark, vectorizer, name, embeddings, counting(f"queries of {name}") if counting else None)
        for name in chosen
    ]
    return Run(benchmark, vectorizer, embeddings, ranked)


def report(ran: Run) -> Report:
    """Return the report of a run on a split whose answers are known.

    Raises:
        SourceError: the answers of the split are not published.
    """
    benchmark = ran.benchmark
    benchmark.check_answered()
    scores = [_all_scores(benchmark, each.rankings, {}) for each in ran.ranked]
    overall = [_table_scores(benchmark, each) for each in scores]
    rows = [
        _row(ran, ranked, by_task, total) for ranked, by_task, total in zip(ran.ranked, scores, overall, strict=True)
    ]
    comparisons = [
        Comparison(row.name, rows[0].name, metrics.differences(values, overall[0]))
        for row, values in zip(rows[1:], overall[1:], strict=True)
    ]
    drawn = drawn_note(benchmark.root)
    missing = ran.pictures.missing
    comparable = not drawn and not missing
    return Report(
        title=f"{benchmark.title}, {benchmark.split}",
        summary=list(_summary(ran, rows, drawn)),
        choices=[("split", benchmark.split), *benchmark.choices, *_choices(ran, drawn)],
        rows=rows,
        queries=sum(len(task.queries) for task in _tasks_once(benchmark)),
        gallery=len(_gallery_names(benchmark) & ran.pictures.rows.keys()),
        comparisons=comparisons,
        published=benchmark.published if comparable else (),
        examples=_examples(ran, scores),
        missing=[_shown_name(benchmark, name) for name in missing[:MOST_NAMED]],
        missing_count=len(missing),
        lower_is_better=benchmark.lower_is_better,
    )


def drawn_note(root: Path) -> str:
    """Return what the file `DRAWN` in a dataset's folder, or in the folder above it, says; "" if there is none."""
    path = first(root, DRAWN, f"../{DRAWN}")
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0].strip() or "the pictures are drawn stand-ins"
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read ({error}); write one line about the pictures into it") from error


def overall_scores(scores: Mapping[str, Scores]) -> dict[str, Values]:
    """Return values over the queries of all tasks whose mean is the mean of the tasks' means.

    Args:
        scores: by task name. A figure counts only for tasks that have it.
    """
    found = {}
    for name in dict.fromkeys(name for each in scores.values() for name in each):
        values = [each[name] for each in scores.values() if name in each]
        total = sum(len(each) for each in values)
        found[name] = np.concatenate([each * (total / (len(values) * len(each))) for each in values])
    return found


def _all_scores(
    benchmark: Benchmark, rankings: Mapping[str, Rankings], depths: Mapping[str, Sequence[int]]
) -> dict[str, Scores]:
    return {
        task.name: benchmark.values(task, rankings[task.name], depths.get(task.name, task.ks))
        for task in benchmark.tasks
    }


def _table_scores(benchmark: Benchmark, by_task: Mapping[str, Scores]) -> Scores:
    """Return the values of the table's figures, over all queries or over groups of queries."""
    found = overall_scores(by_task)
    for task in benchmark.tasks:
        found |= benchmark.grouped(task, by_task[task.name])
    return {name: found[name] for name in benchmark.figures or found if name in found}


def _row(ran: Run, ranked: Ranked, by_task: Mapping[str, Scores], overall: Scores) -> Row:
    benchmark = ran.benchmark
    depths = {task.name: [k for k in _CURVE if k <= task.depth] for task in benchmark.tasks}
    curves: dict[str, list[tuple[int, float]]] = {}
    for name, values in overall_scores(_all_scores(benchmark, ranked.rankings, depths)).items():
        letter, _, k = name.partition("@")
        if k.isdecimal():
            curves.setdefault(letter, []).append((int(k), float(np.mean(values))))
    return Row(
        name=ranked.composer,
        settings=_settings(ran.vectorizer, ranked.composer),
        figures=metrics.estimates(overall),
        parts=_parts(benchmark, by_task),
        curves=curves,
        milliseconds=ranked.milliseconds,
    )


def _parts(benchmark: Benchmark, by_task: Mapping[str, Scores]) -> Mapping[str, Mapping[str, Figures]]:
    """Return figures of the tasks, if they are shown apart, and of the parts that the queries belong to."""
    parts: dict[str, dict[str, Figures]] = {}
    if benchmark.division:
        parts[benchmark.division] = {name: metrics.estimates(scores) for name, scores in by_task.items()}
    for task in benchmark.tasks:
        rows: dict[tuple[str, str], list[int]] = {}
        for i, query in enumerate(task.queries):
            for division, names in query.parts.items():
                for name in names:
                    rows.setdefault((division, name), []).append(i)
        chosen = benchmark.part_figures or tuple(by_task[task.name])
        for (division, name), mine in sorted(rows.items()):
            scores = {figure: by_task[task.name][figure][mine] for figure in chosen}
            parts.setdefault(division, {})[name] = metrics.estimates(scores)
    return parts


def _settings(vectorizer: "Vectorizer", name: str) -> dict[str, Any]:
    from cir_vectorizer.composers.lincir import LinCIR

    composer = vectorizer.composers[name]
    settings: dict[str, Any] = {"model": vectorizer.name, "composer": name}
    if isinstance(composer, LinCIR):
        settings |= {"prompt": composer.prompts.of(None).prompt, "adapter": composer.adapter is not None}
    if defaults := vectorizer.defaults.get(name):
        settings["options"] = defaults.to_json()
    return settings


def _choices(ran: Run, drawn: str) -> Iterator[tuple[str, str]]:
    vectorizer = ran.vectorizer
    yield "gallery size", f"{len(_gallery_names(ran.benchmark)):,} pictures"
    yield "backbone", f"{vectorizer.backbone.spec}, {vectorizer.precision}, fingerprint {vectorizer.fingerprint[:12]}"
    for ranked in ran.ranked:
        settings = _settings(vectorizer, ranked.composer)
        if "prompt" in settings:
            yield f"prompt of {ranked.composer}", settings["prompt"]
            yield f"adapter of {ranked.composer}", "yes" if settings["adapter"] else "none"
        if "options" in settings:
            yield f"options of {ranked.composer}, from the model folder", json.dumps(settings["options"])
    yield "reference pictures", "embedded as the gallery is; composers are given the embeddings"
    if drawn:
        yield "pictures", drawn


def _summary(ran: Run, rows: Sequence[Row], drawn: str) -> Iterator[str]:
    benchmark, missing = ran.benchmark, set(ran.pictures.missing)
    if drawn:
        yield f"These figures say nothing about real pictures: {drawn.rstrip('.')}."
    leading = next(iter(rows[0].figures))
    best = max(rows, key=lambda row: row.figures[leading].value)
    yield f"{best.name} has the highest {leading}: {percent(best.figures[leading].value)} %."
    if missing:
        tasks = _tasks_once(benchmark)
        queries = [query for task in tasks for query in task.queries]
        failed = sum(not missing.isdisjoint(query.references) for query in queries)
        lost = sum(not missing.isdisjoint(query.right) for query in queries)
        yield (
            f"{len(missing):,} of {len(missing) + len(ran.pictures.rows):,} pictures are missing or cannot be read: "
            f"{failed:,} queries without their reference count as failed, and {lost:,} queries lack a right answer, which "
            "counts as not found."
        )
    if benchmark.published and drawn:
        yield "Published figures are of real pictures, so none is shown."
    elif benchmark.published and missing:
        yield "Published figures are of the whole gallery, so none is shown."
    elif not benchmark.published:
        yield benchmark.elsewhere


def _tasks_once(benchmark: Benchmark) -> list[Task]:
    """Return the tasks, without those that rank other galleries for queries of an earlier task."""
    tasks: list[Task] = []
    for task in benchmark.tasks:
        if not any(_asks(task) == _asks(other) for other in tasks):
            tasks.append(task)
    return tasks


def _asks(task: Task) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return [(query.name, query.references, query.texts) for query in task.queries]


def _gallery_names(benchmark: Benchmark) -> set[str]:
    own = {name for task in benchmark.tasks for query in task.queries for name in query.gallery or ()}
    return own | {name for task in benchmark.tasks for name in task.gallery}


def _picture_names(benchmark: Benchmark) -> list[str]:
    """Return the names of all pictures, each once: galleries, then the queries' own galleries and references."""
    names = [name for task in benchmark.tasks for name in task.gallery]
    for task in benchmark.tasks:
        for query in task.queries:
            names += [*(query.gallery or ()), *query.references]
    return list(dict.fromkeys(names))


def _shown_name(benchmark: Benchmark, name: str) -> str:
    path = benchmark.file(name)
    return str(path.relative_to(benchmark.root)) if path.is_relative_to(benchmark.root) else str(path)


def _examples(ran: Run, scores: Sequence[Mapping[str, Scores]]) -> list[Example]:
    """Return queries that the first composer answered best and worst, by the leading figure and then by the others.

    No two of the best, and no two of the worst, have the same references.
    """
    task = ran.benchmark.tasks[0]
    found = scores[0][task.name]
    shown = [name for name in ran.benchmark.figures or found if name in found]
    values = [found[name] for name in shown if name not in ran.benchmark.lower_is_better]
    order = np.lexsort((-np.sum(values, axis=0), -values[0]))  # stable: equal ones stay in the file's order
    asked = [int(i) for i in order if ran.ranked[0].rankings[task.name][i]]
    best = _apart(task, [i for i in asked if any(each[i] for each in values)])
    worst = _apart(task, [i for i in asked[::-1] if i not in best])
    return [_example(ran, task, i, "best") for i in best] + [_example(ran, task, i, "worst") for i in worst]


def _apart(task: Task, order: Sequence[int]) -> list[int]:
    """Return the first queries with different references."""
    chosen: dict[tuple[str, ...], int] = {}
    for i in order:
        if len(chosen) == _EXAMPLES:
            break
        chosen.setdefault(task.queries[i].references, i)
    return list(chosen.values())


def _example(ran: Run, task: Task, i: int, verdict: str) -> Example:
    query: Query = task.queries[i]

    def shown(name: str, right: bool | None) -> Shown:
        return Shown(str(ran.benchmark.file(name)), name, right)

    return Example(
        text=query.texts[0],
        references=[shown(name, None) for name in query.references],
        results={
            ranked.composer: [shown(name, name in query.right) for name in ranked.rankings[task.name][i][:_RESULTS]]
            for ranked in ran.ranked
        },
        verdict=verdict,
    )
