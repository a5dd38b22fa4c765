"""Compare this implementation with numbers that the original ones produced: `python -m tests.parity FILE`."""

from pathlib import Path

from tests.parity import compodiff, lincir
from tests.parity.file import read


def check(path: Path) -> list[tuple[str, float, float]]:
    """Yield (name, largest absolute difference, bar) for everything that the file records."""
    config, tensors = read(path)
    if any(name.startswith("phi.") for name in tensors):
        return [(name, difference, lincir.BAR) for name, difference in lincir.differences(config, tensors)]
    if any(name.startswith("model.net.") for name in tensors):
        return list(compodiff.differences(config, tensors))
    raise SystemExit(f"{path} holds no numbers of LinCIR (tensors phi.*) or CompoDiff (tensors model.net.*)")


__all__ = ["check"]
