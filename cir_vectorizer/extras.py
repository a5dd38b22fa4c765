"""Optional parts, and the one place that reads entry points."""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points


def plugins(group: str) -> Mapping[str, EntryPoint]:
    """Return the entry points of a group by name; nothing is loaded."""
    return {point.name: point for point in entry_points(group=group)}
