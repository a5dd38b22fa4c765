"""Benchmarks of the papers: queries with known answers over a gallery, and the rankings that are scored on them.

A benchmark's file (`circo.py`, `cirr.py`, …) reads the official annotations as a `Benchmark`. A ranking is a sequence of
picture names, the best first; rankings stand in the order of a task's queries. They come from a file (`--rankings`) or
from a model (`running.py`), and are scored by the same functions.
"""

import reprlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cir_vectorizer.errors import SourceError
from cir_vectorizer.evaluate.benchmarks.annotations import read_json, text
from cir_vectorizer.evaluate.metrics import Relevance, Values
from cir_vectorizer.evaluate.report import Published

if TYPE_CHECKING:
    from PIL import Image

Rankings = Sequence[Sequence[str]]
Scores = Mapping[str, Values]
"""Values of a task's queries, (queries,), by the figure's name."""


@dataclass(frozen=True)
class Query:
    """A query of a benchmark; all pictures are given by name.

    Attributes:
        name: as rankings name it, or its place in the file.
        references: the pictures of the query.
        texts: its words; if there are several readings of them, their vectors are averaged.
        right: right answers, the target first; empty if the split's answers are not published.
        gallery: the pictures to rank, if the query has its own. Of equal scores the first picture wins, so the target
            stands last.
        excluded: pictures that are taken out of every ranking.
        unwanted: pictures that must not be found.
        parts: the parts of the queries that it belongs to, by division: {"aspect": ("negation", "addition")}.
    """

    name: str
    references: tuple[str, ...]
    texts: tuple[str, ...]
    right: tuple[str, ...] = ()
    gallery: tuple[str, ...] | None = None
    excluded: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Queries that are ranked and averaged together: a category of FashionIQ, a task of GeneCIS, or all queries.

    Attributes:
        ks: depths of the figures.
        gallery: the pictures to rank, for queries without their own.
        listed: whether a file of the dataset lists the gallery, so that any other name in a ranking is an error.
    """

    name: str
    queries: tuple[Query, ...]
    ks: tuple[int, ...]
    gallery: tuple[str, ...] = ()
    listed: bool = True

    @property
    def depth(self) -> int:
        """Number of results that are looked at."""
        return max(self.ks)


@dataclass(frozen=True)
class Benchmark:
    """A split of a benchmark, and its functions.

    Attributes:
        title: for example "CIRCO".
        root: the folder that it was read from.
        file: returns the file of a picture, which may not exist.
        values: scores rankings of a task at some depths k: one value for each query, by the figure's name ("R@10").
        parse: reads the content of a ranking file, whose path it names in errors: rankings by task name. A file may
            have some of the tasks.
        form: returns the files, by suffix of their name, that `parse` and the benchmark's server read.
        to_json: returns the JSON of `--rankings`, from the tasks and their scores.
        division: the kind of the tasks ("category"), if their figures are shown apart.
        grouped: returns figures with one value for each group of a task's queries, from the queries' own scores.
        lower_is_better: names of figures of which less is better.
        figures: the figures of the report's table, in their order; all if there are none.
        part_figures: the figures that are shown for parts of the queries; all if there are none.
        view: returns what the model is shown of a picture, given its name: the whole picture or a part.
        choices: choices that the figures hang on, as (name, value).
        published: figures of papers on this very split and setting.
        elsewhere: a sentence for a reader who misses published figures, or "".
    """

    title: str
    split: str
    root: Path
    tasks: tuple[Task, ...]
    file: Callable[[str], Path]
    values: Callable[[Task, Rankings, Sequence[int]], Scores]
    parse: Callable[[Sequence[Task], Any, Path], Mapping[str, Rankings]]
    form: Callable[[Mapping[str, Rankings], Sequence[Task]], Mapping[str, Any]]
    to_json: Callable[[Mapping[str, Scores], Sequence[Task]], Mapping[str, Any]]
    division: str = ""
    view: "Callable[[str, Image.Image], Image.Image]" = lambda _, picture: picture
    grouped: Callable[[Task, Scores], Scores] = lambda _task, _scores: {}
    lower_is_better: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    part_figures: tuple[str, ...] = ()
    choices: tuple[tuple[str, str], ...] = ()
    published: tuple[Published, ...] = ()
    elsewhere: str = ""

    @property
    def answered(self) -> bool:
        """True if the right answers of this split are known."""
        return all(query.right for task in self.tasks for query in task.queries)

    def check_answered(self) -> None:
        """Check that rankings can be scored here.

        Raises:
            SourceError: the answers of this split are not published.
        """
        if not self.answered:
            raise SourceError(
                f"the answers of {self.title}'s split {self.split} are not published, so it cannot be scored here; "
                "score another split, or have --submission write a file for the benchmark's server"
            )


def score_file(benchmark: Benchmark, path: Path, note: Callable[[str], None] = lambda _: None) -> Mapping[str, Any]:
    """Score a ranking made elsewhere.

    Args:
        note: called with a sentence if rankings are too short for the figures.

    Returns:
        The JSON of `--rankings`: figures as fractions, unrounded.

    Raises:
        SourceError: the split has no answers, or the file is damaged, leaves a query out, has one that the split does
            not have, or names a picture twice or one outside the gallery.
    """
    benchmark.check_answered()
    rankings = benchmark.parse(benchmark.tasks, read_json(path), path)
    tasks = [task for task in benchmark.tasks if task.name in rankings]
    for task in tasks:
        if short := sum(len(names) < task.depth for names in rankings[task.name]):
            of = f" of {task.name}" if task.name else ""
            note(
                f"{short:,} rankings{of} have fewer than {task.depth} pictures; the missing results count as wrong ones"
            )
    return benchmark.to_json({task.name: benchmark.values(task, rankings[task.name], task.ks) for task in tasks}, tasks)


def by_query(task: Task, lists: Mapping[str, Any], source: Path) -> list[Any]:
    """Return the values of a JSON object with one key a query, in the order of the task's queries.

    Raises:
        SourceError: a query is left out, or a key names none.
    """
    names = {query.name for query in task.queries}
    if unknown := [name for name in lists if name not in names]:
        raise SourceError(
            f"{source}: query {unknown[0]} is not in this split{_more(unknown)}; score it with the annotations that it was made for"
        )
    if left := [query.name for query in task.queries if query.name not in lists]:
        raise SourceError(f"{source} leaves out query {left[0]}{_more(left)}; rank all {len(names):,} queries")
    return [lists[query.name] for query in task.queries]


def by_task(tasks: Sequence[Task], content: Any, source: Path) -> dict[str, list[Any]]:
    """Return the lists of a JSON object with one key a task, each a list with one item a query in the file's order.

    Raises:
        SourceError: a key names no task, or a list is longer or shorter than the task's queries.
    """
    known = {task.name: task for task in tasks}
    if not isinstance(content, dict) or not content:
        raise SourceError(
            f"{source} is no JSON object with rankings by name ({', '.join(known)}); write it in that form"
        )
    if unknown := [name for name in content if name not in known]:
        raise SourceError(f"{source}: {unknown[0]!r} is none of {', '.join(known)} in this folder; take it out")
    for name, lists in content.items():
        queries = known[name].queries
        if not isinstance(lists, list):
            raise SourceError(f"{source}: {name} is no list; give one ranking for each query, in the order of the file")
        if len(lists) < len(queries):
            left = queries[len(lists)]
            raise SourceError(
                f"{source}: {name} leaves out query {left.name} (reference {left.references[0]}) and all after it: it has "
                f"{len(lists):,} rankings for {len(queries):,} queries"
            )
        if len(lists) > len(queries):
            problem = f"has {len(lists):,} rankings, but this split has {len(queries):,} queries"
            raise SourceError(f"{source}: {name} {problem}; score it with the annotations that it was made for")
    return content


def checked(
    task: Task, lists: Sequence[Any], source: Path, read: Callable[[object], str | None] = text
) -> list[list[str]]:
    """Check the rankings of a task's queries, and take each query's excluded pictures out.

    Args:
        lists: a list of picture names for each query.
        read: returns the name for a value of a list, or None if it is no name.

    Raises:
        SourceError: a ranking is missing, or names a picture twice or one that is not in the gallery.
    """
    listed = frozenset(task.gallery) if task.listed else None
    found = []
    for query, values in zip(task.queries, lists, strict=True):
        where = f"{source}: {f'{task.name}, ' if task.name else ''}query {query.name}"
        if not isinstance(values, list) or not values:
            raise SourceError(f"{where} has no ranking; give a list of picture names, the best first")
        names = [name for value in values if (name := read(value)) is not None]
        if len(names) < len(values):
            wrong = reprlib.repr(next(value for value in values if read(value) is None))
            raise SourceError(f"{where}: {wrong} is no picture name; give the dataset's own names")
        known = listed if query.gallery is None else {*query.gallery, *query.excluded}
        if known is not None and (unknown := next((name for name in names if name not in known), None)):
            whose = "gallery of this split" if query.gallery is None else "query's own gallery"
            raise SourceError(f"{where}: picture {unknown[:100]} is not in the {whose}; rank only pictures of it")
        if len(set(names)) < len(names) and (twice := _too_often(names, query.gallery or ())):
            raise SourceError(f"{where}: picture {twice} stands twice in the ranking; name each picture once")
        found.append([name for name in names if name not in query.excluded])
    return found


def relevance(rankings: Rankings, answers: Iterable[Collection[str]], depth: int) -> Relevance:
    """Return whether each of the first `depth` results is one of its query's answers. (queries, depth)"""
    found = np.zeros((len(rankings), depth), np.bool_)
    for row, names, right in zip(found, rankings, answers, strict=True):
        for rank, name in enumerate(names[:depth]):
            row[rank] = name in right
    return found


def means(scores: Scores) -> dict[str, float]:
    """Return the mean of each figure's values."""
    return {name: float(np.mean(values)) for name, values in scores.items()}


def average(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each figure over tasks, each task with the same weight."""
    return {name: float(np.mean([each[name] for each in figures])) for name in figures[0]}


def _too_often(names: Sequence[str], gallery: Sequence[str]) -> str | None:
    """Return the first name that stands more often in a ranking than in its gallery (at least once), or None."""
    allowed = Counter(gallery)
    return next((name for name, count in Counter(names).items() if count > max(allowed[name], 1)), None)


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1:,} more)" if len(names) > 1 else ""
