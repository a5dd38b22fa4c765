"""`cir-vectorizer evaluate pinpoint`: the benchmark PinPoint, for a model or for a ranking made elsewhere."""

from typing import Any

import click

from cir_vectorizer.cli.evaluate.benchmarks import evaluate_benchmark, unsplit_options


@click.command(short_help="PinPoint: right and unwanted answers, and sensitivity to wording.")
@unsplit_options
def pinpoint(**given: Any) -> None:
    """Judge on PinPoint: mAP@k, NegRecall@k of unwanted answers, and sensitivity to wording.

    --rankings reads {"00001": [signatures, best first], …}, or the form of the official evaluation: {"00001":
    {"retrieved_items": [signatures, best first]}, …}.
    """
    from cir_vectorizer.evaluate.benchmarks.pinpoint import read

    evaluate_benchmark(lambda data, _split: read(data), split="", **given)
