"""Benchmark of the start-up time: `import cir_vectorizer` and `cir-vectorizer --help`, compared with `python -c pass`.

python benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import time

RUNS = 15
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import cir_vectorizer": ["-c", "import cir_vectorizer"],
    "cir-vectorizer --help": ["-m", "cir_vectorizer.cli", "--help"],
}


def seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    bare = statistics.median(times["python -c pass"])
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:24} {median * 1000:6.0f} ms   {(median - bare) * 1000:+6.0f} ms beside python -c pass")


if __name__ == "__main__":
    main()
