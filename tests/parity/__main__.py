"""Compare this implementation with numbers that the original ones produced.

    python -m tests.parity FILE

FILE is a safetensors file in the format of lincir.safetensors or compodiff.safetensors: weights on random values, inputs
and outputs. Prints each difference and fails if one is over its bar.
"""

import sys
from pathlib import Path

from tests.parity import check


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__)
        return 2
    results = check(Path(arguments[0]))
    for name, difference, bar in results:
        print(f"{'ok  ' if difference <= bar else 'OVER'} {difference:9.2e} (bar {bar:.0e})  {name}")
    over = sum(not difference <= bar for _, difference, bar in results)
    print(f"{len(results) - over} of {len(results)} within the bar")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
