"""`cir-vectorizer evaluate circo|cirr|fashioniq|genecis`: the papers' benchmarks, for a model or for a ranking made elsewhere."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cir_vectorizer.cli.common import fail_with_sentence, with_options

if TYPE_CHECKING:
    from cir_vectorizer.evaluate.benchmark import Benchmark


_PATH = click.Path(path_type=Path)


def _benchmark_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every benchmark."""
    options = (
        click.option("--data", required=True, type=_PATH, metavar="DIR", help="The dataset's folder, as downloaded."),
        click.option("--split", default="val", show_default=True, help="Split of the dataset."),
        click.option("--rankings", required=True, type=_PATH, metavar="FILE", help="Score a ranking made elsewhere."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
    )
    return with_options(fail_with_sentence(command), options)


@click.command(short_help="CIRCO: mAP over several right answers.")
@_benchmark_options
def circo(**given: Any) -> None:
    """Judge on CIRCO: mAP@k over several right answers, R@k of the target, mAP@10 by semantic aspect.

    --rankings reads CIRCO's submission form: {"0": [picture ids, best first], …}.
    """
    from cir_vectorizer.evaluate.circo import read

    _run(read, **given)


@click.command(short_help="CIRR: recall over a split and within image sets.")
@_benchmark_options
def cirr(**given: Any) -> None:
    """Judge on CIRR: R@k over the split without the reference, and Rs@k within the query's image set.

    --rankings reads CIRR's submission form: {"version": "rc2", "metric": "recall" or "recall_subset", "12060": [names], …}.
    """
    from cir_vectorizer.evaluate.cirr import read

    _run(read, **given)


@click.command(short_help="FashionIQ: recall by category.")
@_benchmark_options
def fashioniq(**given: Any) -> None:
    """Judge on FashionIQ: R@10 and R@50 by category, and their mean.

    --rankings reads {"dress": [[names, best first] for each query in the file's order], "shirt": …, "toptee": …}; it
    may have some of the categories.
    """
    from cir_vectorizer.evaluate.fashioniq import read

    _run(read, **given)


@click.command(short_help="GeneCIS: recall within small galleries.")
@_benchmark_options
def genecis(**given: Any) -> None:
    """Judge on GeneCIS: R@1, R@2 and R@3 within each query's own gallery, by task.

    --rankings reads {"change_object": [[picture ids, best first] for each query in the file's order], …}; it may have
    some of the tasks.
    """
    from cir_vectorizer.evaluate.genecis import read

    _run(read, **given)


def _run(read: "Callable[[Path, str], Benchmark]", data: Path, split: str, rankings: Path, as_json: bool) -> None:
    from cir_vectorizer.evaluate.benchmark import score_file

    benchmark = read(data, split)
    figures = score_file(benchmark, rankings)
    if as_json:
        click.echo(json.dumps(figures))
    else:
        click.echo(f"{benchmark.title}, {benchmark.split}")
        _print(figures)


def _print(figures: Mapping[str, Any], indent: str = "") -> None:
    """Print figures in percent, one a line; groups of figures are indented under their name."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            click.echo(f"{indent}{name}")
            _print(value, f"{indent}  ")
        else:
            click.echo(f"{indent}{name:<{30 - len(indent)}}{100 * value:6.2f} %")
