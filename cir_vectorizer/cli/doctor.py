"""`cir-vectorizer doctor`: checks that a model and its collection fit together, and says what to fix."""

import contextlib
import functools
import itertools
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cir_vectorizer import extras
from cir_vectorizer.cli.common import (
    MODEL_OPTION,
    PICTURE_COLUMN_OPTION,
    PRIVATE_URLS_OPTION,
    collection_option,
    database_options,
    echo_json,
    fail_with_sentence,
    recorded_model,
    say_if_toy,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cir_vectorizer.collections import ModelRecord
    from cir_vectorizer.doctor import Adoption, Finding
    from cir_vectorizer.doctor.wiring import Compose
    from cir_vectorizer.models import Vectorizer

STATUS = {"ok": 0, "warning": 3, "problem": 1}


@click.command(short_help="Check a collection, its server and the container, and say what to fix.")
@collection_option("--to")
@MODEL_OPTION
@click.option("--service", metavar="URL", help="Check the container too: its address without a path.")
@click.option("--service-key", envvar="CIR_API_KEY", help="Key of the container; else CIR_API_KEY.")
@click.option(
    "--adopt", is_flag=True, help="If another program filled it: verify the model on its pictures, then note it there."
)
@PICTURE_COLUMN_OPTION
@PRIVATE_URLS_OPTION
@database_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object: address, model, level, findings.")
@fail_with_sentence
def doctor(
    address: str,
    model: str,
    service: str | None,
    service_key: str | None,
    adopt: bool,
    picture_column: str | None,
    private_urls: bool,
    api_key: str | None,
    using: str | None,
    tenant: str | None,
    grpc: bool,
    grpc_port: int | None,
    as_json: bool,
) -> None:
    """Check that a collection, its server and the container fit a model, and say what to fix.

    Nothing is written into the collection: a test object goes into one made beside it, which is removed again. Only
    --adopt notes the model in the collection, once some twenty of its pictures give the vectors that it holds.

    Exit status: 0 all is well, 3 only warnings, 1 a problem.
    """
    from cir_vectorizer.collections import OpenOptions, open_collection
    from cir_vectorizer.doctor import examine, worst

    findings = []
    opening = OpenOptions(using, tenant, grpc, grpc_port, picture_column)
    loaded = functools.cache(lambda: _load(model))
    adoption = None
    if adopt:
        extras.require("models", "--adopt")
        adoption = _adoption(loaded(), private_urls)
    with contextlib.closing(open_collection(address, api_key, opening)) as collection:
        say_if_toy()
        record, mean_norm, encoder = _model(model, loaded)
        found = examine(collection, record, mean_norm, service, service_key, _composing(loaded), adoption)
        for finding in itertools.chain(encoder, found):
            findings.append(finding)
            if not as_json:
                colour = {"ok": "green", "warning": "yellow", "problem": "red"}[finding.level]
                click.echo(f"{click.style(f'{finding.level:8}', colour)} {finding.check}: {finding.sentence}")
        shown = str(collection.address)
    level = worst(findings)
    if as_json:
        listed = [asdict(finding) for finding in findings]
        answer = {"address": shown, "model": str(record), "level": level, "findings": listed}
        echo_json(answer, indent=2)
    sys.exit(STATUS[level])


def _load(name: str) -> "Vectorizer":
    from cir_vectorizer.models import load

    return load(name, "cpu", parts=())


def _composing(loaded: "Callable[[], Vectorizer]") -> "Compose | None":
    """Return a function that composes queries with the model; None if no model can run here."""
    if extras.missing("models"):
        return None
    return lambda queries: loaded().compose(queries).vectors


def _adoption(model: "Vectorizer", private_urls: bool) -> "Adoption":
    from cir_vectorizer.doctor import Adoption
    from cir_vectorizer.sources import Web

    return Adoption(model, Web(private_urls), os.getcwd())


def _model(name: str, loaded: "Callable[[], Vectorizer]") -> "tuple[ModelRecord, float | None, Iterable[Finding]]":
    """Return a model's record, its mean norm and what is known of its encoder; the weights are loaded only if no folder records them."""
    from cir_vectorizer.collections import ModelRecord
    from cir_vectorizer.doctor import encoder_finding

    if (record := recorded_model(name)) is not None:
        languages = [entry["language"] for entry in record.composers.values() if "language" in entry]
        return record, record.mean_image_norm, encoder_finding(record.backbone, None, *languages[:1])
    backbone = loaded().backbone
    return ModelRecord.of(loaded()), backbone.mean_image_norm, encoder_finding(backbone.spec, backbone.text.facts)
