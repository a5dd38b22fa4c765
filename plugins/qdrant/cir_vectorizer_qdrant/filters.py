"""Conversion of the core's conditions to Qdrant's filter."""

from collections.abc import Sequence

from qdrant_client import models

from cir_vectorizer.collections import Id
from cir_vectorizer.query.filters import EXACT_INTEGER, Condition, Filter, Value
from cir_vectorizer_qdrant.columns import column_key


def to_qdrant(where: Filter, without: Sequence[Id] = ()) -> models.Filter | None:
    """Convert conditions that must all hold to a Qdrant filter; None if there are no conditions.

    Args:
        without: ids of objects to leave out.

    Raises:
        QueryError: Qdrant has no key for a column's name.
    """
    if not where and not without:
        return None
    must_not = [_condition(each) for each in where if each.operator == "!="]
    if without:
        must_not.append(models.HasIdCondition(has_id=list(without)))
    return models.Filter(must=[_condition(each) for each in where if each.operator != "!="], must_not=must_not)


def _condition(condition: Condition) -> models.Condition:
    key = column_key(condition.column)
    if condition.operator in ("=", "!=", "in"):
        return models.Filter(should=[test for value in condition.values for test in _equals(key, value)])
    bound = condition.values[0].number
    sides = {
        "<": models.Range(lt=bound),
        "<=": models.Range(lte=bound),
        ">": models.Range(gt=bound),
        ">=": models.Range(gte=bound),
    }
    return models.FieldCondition(key=key, range=sides[condition.operator])


def _equals(key: str, value: Value) -> list[models.Condition]:
    tests: list[models.Condition] = [
        models.FieldCondition(key=key, match=models.MatchValue(value=text)) for text in value.texts
    ]
    if value.truth is not None:
        tests.append(models.FieldCondition(key=key, match=models.MatchValue(value=value.truth)))
    number = value.number
    if isinstance(number, int) and abs(number) > EXACT_INTEGER:
        tests.append(models.FieldCondition(key=key, match=models.MatchValue(value=number)))
    elif number is not None:
        tests.append(models.FieldCondition(key=key, range=models.Range(gte=number, lte=number)))
    return tests
