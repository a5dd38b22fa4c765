"""Candidates of a search in Weaviate, and their cosines to several vectors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from weaviate.classes.query import TargetVectors
from weaviate.collections import Collection

from cir_vectorizer.collections import TEXT_VECTOR, Ask, Candidates, Id, Signal, Vector
from cir_vectorizer_weaviate import objects
from cir_vectorizer_weaviate.schema import PAYLOAD, UNNAMED, Schema

LEAST_DEPTH = 15


@dataclass(frozen=True)
class Found:
    """An object with its vectors by name, as little-endian float32, and its properties, if they were asked for."""

    id: Id
    vectors: Mapping[str, bytes]
    properties: Mapping[str, Any]


def names(signals: Iterable[Signal], schema: Schema) -> list[str]:
    """Return the names of the vectors that are compared with these signals; none for a vector without a name."""
    return list({name: None for signal in signals if (name := target(signal, schema)) is not None})


def target(signal: Signal, schema: Schema) -> str | None:
    """Return the name of the vector that is compared with a signal; None for a vector without a name."""
    return TEXT_VECTOR if signal.of == "text" else schema.using


def both(weight: float, schema: Schema) -> Any:
    """Return the targets of a search by picture and text at once, which leaves out objects without a text.

    Args:
        weight: weight of the texts.
    """
    return TargetVectors.manual_weights({str(schema.using): 1 - weight, TEXT_VECTOR: weight})


def depth(shown: int) -> int:
    """Return the number of objects of each ranking that a search by picture and text compares.

    The two agree by and large: `benchmarks/second_signals_speed.py` says how many of the best are among these.
    """
    return max(LEAST_DEPTH, 3 * shown // 2)


def nearest(
    remote: Collection[Any, Any],
    vector: Vector,
    target: Any,
    limit: int,
    filters: Any,
    names: Sequence[str],
    properties: Sequence[str] = (),
) -> list[Found]:
    """Return the objects nearest to a vector, with the vectors that `names` lists and with some properties.

    The client converts each number of a vector by itself, which takes longer than the search. So the vectors are taken from
    the server's answer, by private attributes of the client; in a version without them, this takes longer and nothing else
    changes.

    Args:
        target: name of the vector to compare with, or several with their weights; None for a vector without a name.
        properties: names of texts.
    """
    include: Any = list(names) or True
    shown: Any = list(properties) or False
    arguments: dict[str, Any] = {"filters": filters, "target_vector": target, "limit": limit}
    query: Any = remote.query
    try:
        request = query._query.near_vector(
            near_vector=vector.tolist(),
            **arguments,
            return_metadata=query._parse_return_metadata(None, include),
            return_properties=query._parse_return_properties(shown),
        )
        run = query._connection.grpc_search
    except (AttributeError, TypeError):
        found = query.near_vector(vector.tolist(), **arguments, include_vector=include, return_properties=shown).objects
        return [
            Found(
                str(each.uuid),
                {name: np.asarray(made, dtype="<f4").tobytes() for name, made in each.vector.items()},
                each.properties,
            )
            for each in found
        ]
    return [_read(each, properties) for each in run(request).results]


def scored(found: Iterable[Found], signals: Sequence[Signal], schema: Schema, ask: Ask, shown: int) -> Candidates:
    """Return objects with their cosine to each signal, and with the payloads of those that will be shown, as far as known."""
    unique = list({each.id: each for each in found}.values())
    cosines = np.full((len(unique), len(signals)), np.nan)
    for name in {target(each, schema) for each in signals}:
        columns = [i for i, each in enumerate(signals) if target(each, schema) == name]
        rows = [i for i, each in enumerate(unique) if (name or UNNAMED) in each.vectors]
        if rows:
            held = b"".join(unique[i].vectors[name or UNNAMED] for i in rows)
            vectors = np.frombuffer(held, dtype="<f4").reshape(len(rows), -1)
            compared = vectors @ np.stack([signals[i].vector for i in columns], axis=1)
            cosines[np.ix_(rows, columns)] = compared / np.linalg.norm(vectors, axis=1, keepdims=True)
    payloads = {}
    if shown and ask.texts is not None:
        best = [unique[int(i)] for i in np.argsort(-ask.texts.fused(cosines))[:shown]]
        payloads = {each.id: objects.payload(each.properties, schema) for each in best if PAYLOAD in each.properties}
    return Candidates([each.id for each in unique], cosines, payloads)


def _read(found: Any, properties: Sequence[str]) -> Found:
    metadata = found.metadata
    made = {each.name: each.vector_bytes for each in metadata.vectors}
    if metadata.vector_bytes:
        made[UNNAMED] = metadata.vector_bytes
    fields = found.properties.non_ref_props.fields if properties else {}
    return Found(metadata.id, made, {name: fields[name].text_value for name in properties if name in fields})
