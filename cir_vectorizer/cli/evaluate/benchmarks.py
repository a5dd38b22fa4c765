"""`cir-vectorizer evaluate circo|cirr|fashioniq|genecis`: the papers' benchmarks, for a model or for a ranking made elsewhere."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cir_vectorizer import extras
from cir_vectorizer.cli.common import (
    DEVICE_OPTION,
    MODEL_OPTION,
    PRECISION_OPTION,
    echo_json,
    fail_with_sentence,
    say_if_toy,
    with_options,
)
from cir_vectorizer.cli.evaluate.showing import check_out, counting, show

if TYPE_CHECKING:
    from cir_vectorizer.evaluate.benchmarks.base import Benchmark
    from cir_vectorizer.evaluate.benchmarks.running import Run

_PATH = click.Path(path_type=Path)


def benchmark_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a benchmark with splits, which `evaluate_benchmark` takes."""
    return click.option("--split", default="val", show_default=True, help="Split of the dataset.")(
        unsplit_options(command)
    )


def unsplit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every benchmark."""
    options = (
        click.option("--data", required=True, type=_PATH, metavar="DIR", help="The dataset's folder, as downloaded."),
        click.option(
            "--rankings",
            type=_PATH,
            metavar="FILE",
            help="Score a ranking made elsewhere, without a model and pictures.",
        ),
        MODEL_OPTION,
        click.option(
            "--composer",
            "composers",
            multiple=True,
            metavar="NAME",
            help="Composer to judge; repeat it to compare several with the first.  [default: all of the model]",
        ),
        click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the report."),
        click.option(
            "--submission",
            type=_PATH,
            metavar="FILE.json",
            help="Write the ranking of the only --composer, as --rankings reads it.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        DEVICE_OPTION,
        PRECISION_OPTION,
    )
    return with_options(fail_with_sentence(command), options)


@click.command(short_help="CIRCO: mAP over several right answers.")
@benchmark_options
def circo(**given: Any) -> None:
    """Judge on CIRCO: mAP@k over several right answers, R@k of the target, mAP@10 by semantic aspect.

    --rankings reads CIRCO's submission form: {"0": [picture ids, best first], …}.
    """
    from cir_vectorizer.evaluate.benchmarks.circo import read

    evaluate_benchmark(read, **given)


@click.command(short_help="CIRR: recall over a split and within image sets.")
@benchmark_options
def cirr(**given: Any) -> None:
    """Judge on CIRR: R@k over the split without the reference, and Rs@k within the query's image set.

    --rankings reads CIRR's submission form: {"version": "rc2", "metric": "recall" or "recall_subset", "12060": [names], …}.
    """
    from cir_vectorizer.evaluate.benchmarks.cirr import read

    evaluate_benchmark(read, **given)


@click.command(short_help="FashionIQ: recall by category.")
@benchmark_options
def fashioniq(**given: Any) -> None:
    """Judge on FashionIQ: R@10 and R@50 by category, and their mean.

    --rankings reads {"dress": [[names, best first] for each query in the file's order], "shirt": …, "toptee": …}; it
    may have some of the categories.
    """
    from cir_vectorizer.evaluate.benchmarks.fashioniq import read

    evaluate_benchmark(read, **given)


@click.command(short_help="GeneCIS: recall within small galleries.")
@benchmark_options
def genecis(**given: Any) -> None:
    """Judge on GeneCIS: R@1, R@2 and R@3 within each query's own gallery, by task.

    --rankings reads {"change_object": [[picture ids, best first] for each query in the file's order], …}; it may have
    some of the tasks.
    """
    from cir_vectorizer.evaluate.benchmarks.genecis import read

    evaluate_benchmark(read, **given)


def evaluate_benchmark(
    read: "Callable[[Path, str], Benchmark]",
    data: Path,
    split: str,
    rankings: Path | None,
    model: str,
    composers: Sequence[str],
    out: Path | None,
    submission: Path | None,
    as_json: bool,
    device: str | None,
    precision: str,
) -> None:
    """Score a ranking, or run a model and print its report.

    Args:
        read: reads a split of the benchmark from a folder.
    """
    from cir_vectorizer.evaluate.benchmarks.base import score_file

    if rankings is not None:
        if composers or out is not None or submission is not None:
            raise click.UsageError("--rankings scores a file; --composer, --out and --submission are for a model")
        benchmark = read(data, split)
        figures = score_file(benchmark, rankings, lambda sentence: click.echo(f"Note: {sentence}", err=True))
        if as_json:
            echo_json(figures)
        else:
            click.echo(f"{benchmark.title}, {benchmark.split}")
            _print(figures)
        return

    extras.require("models", "a model", "give --rankings FILE to score a ranking made elsewhere")
    if submission is not None and len(composers) != 1:
        raise click.UsageError("--submission is the ranking of one composer; give one --composer")
    if submission is not None and not submission.absolute().parent.is_dir():
        raise click.UsageError(
            f"the submission's folder {submission.parent} does not exist; make it, or give another --submission"
        )
    check_out(out)
    say_if_toy()
    benchmark = read(data, split)
    if submission is None:
        benchmark.check_answered()

    from cir_vectorizer.evaluate.benchmarks.running import report, run
    from cir_vectorizer.models import load

    ran = run(benchmark, load(model, device, precision), composers, counting)
    if submission is not None:
        _write_submission(ran, submission)
    if benchmark.answered:
        show(report(ran), out, as_json)


def _print(figures: Mapping[str, Any], indent: str = "") -> None:
    """Print figures in percent, one a line; groups of figures are indented under their name."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            click.echo(f"{indent}{name}")
            _print(value, f"{indent}  ")
        else:
            click.echo(f"{indent}{name:<{30 - len(indent)}}{100 * value:6.2f} %")


def _write_submission(ran: "Run", path: Path) -> None:
    """Write the files of a submission, each whole or not at all; a file for each metric has its name before the suffix."""
    from cir_vectorizer.errors import SourceError
    from cir_vectorizer.files import replace_file

    forms = ran.benchmark.form(ran.ranked[0].rankings, ran.benchmark.tasks)
    for suffix, content in forms.items():
        file = path.with_name(f"{path.stem}{suffix}{path.suffix or '.json'}")
        try:
            replace_file(file, json.dumps(content).encode())
        except OSError as error:
            cause = error.strerror or error
            raise SourceError(f"the submission {file} cannot be written ({cause}); give another place") from error
        click.echo(f"Submission: {file}", err=True)
    empty = sum(not names for lists in ran.ranked[0].rankings.values() for names in lists)
    if empty:
        click.echo(f"Note: {empty:,} rankings are empty, since their reference pictures cannot be read", err=True)
