"""Checks that a model, a collection, its server and the container fit together.

    for finding in examine(collection, model):
        print(finding.level, finding.check, finding.sentence)

Objects are written only into a collection made beside the one examined, which is removed again; `Adoption` notes the
model in the collection itself. A check is skipped if an earlier finding makes it pointless.
"""

from collections.abc import Iterator

from cir_vectorizer.collections import Collection, ModelRecord
from cir_vectorizer.doctor.adoption import Adoption
from cir_vectorizer.doctor.container import Container
from cir_vectorizer.doctor.encoder import encoder_finding
from cir_vectorizer.doctor.examination import Examination
from cir_vectorizer.doctor.findings import Finding, Level, worst
from cir_vectorizer.doctor.wiring import Compose
from cir_vectorizer.errors import ServiceError

__all__ = ["Adoption", "Finding", "Level", "encoder_finding", "examine", "worst"]


def examine(
    collection: Collection,
    model: ModelRecord,
    mean_norm: float | None = None,
    service_url: str | None = None,
    service_key: str | None = None,
    compose: Compose | None = None,
    adoption: Adoption | None = None,
) -> Iterator[Finding]:
    """Check a collection and yield the findings one by one.

    Args:
        model: the model that is to fill or search the collection.
        mean_norm: the model's mean norm of picture embeddings, if it is known.
        service_url: the container's address as this machine sees it, without a path; it may contain a key.
        service_key: the container's key.
        compose: makes the model's vectors of queries here, if no `service_url` is given; they are compared with those
            that the database gets.
        adoption: if given, and another program filled the collection, it notes the model in it once it has verified it.
    """
    examination = Examination(collection, model)
    yield from examination.database()
    if examination.info is not None and adoption is not None:
        yield from adoption.findings(collection, examination.info)
        examination.info = collection.info()
    if examination.info is not None:
        yield from examination.fit(examination.info)
        yield from examination.norms(examination.info, mean_norm)
    if examination.usable:
        yield from examination.round_trip()
    container = None
    if service_url is not None:
        try:
            container = Container(service_url, service_key, model)
        except ServiceError as error:
            yield Finding("service", "problem", f"--service cannot be used: {error}")
        else:
            yield from container.findings()
    if examination.usable:
        yield from examination.wiring(container, compose, service_url is not None)
    if container is not None:
        container.client.close()
