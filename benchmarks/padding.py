"""Benchmark of the padding of text rows on a GPU: it only counts tokens, so it needs no GPU.

    python -m benchmarks.padding FILE [FILE …]

FILE has captions in a form that `cir-vectorizer train --captions` reads. The rows of a batch go through the tower in
order of length, in groups that are padded to their longest row. Up to release 0.1.0, a GPU got a batch of 512 as one
group; now a group ends before the next longer row once it has enough tokens to keep the device busy.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from cir_vectorizer.backbones.packed import ON_GPU, PackSizes, packs
from cir_vectorizer.backbones.tokenizer import ClipTokenizer
from cir_vectorizer_trainer.captions.reading import read_captions

BATCH = 512
CONTEXT = 77
BEFORE = replace(ON_GPU, group=16_384)


def tokens_of(lengths: Sequence[int], sizes: PackSizes) -> tuple[int, int]:
    """Return the number of tokens that go through the tower, including padding, and the number of groups."""
    groups = [group for pack in packs(lengths, sizes) for group in pack]
    return sum(len(group) * max(lengths[i] for i in group) for group in groups), len(groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--column", help="column of the captions")
    parser.add_argument("--batch", type=int, default=BATCH, help="rows in a batch")
    parser.add_argument("--captions", type=int, default=20_000, help="largest number of captions")
    arguments = parser.parse_args()
    captions = read_captions(arguments.files, arguments.column).captions[: arguments.captions]
    tokenizer = ClipTokenizer()
    lengths = [2 + len(tokenizer.encode(caption, CONTEXT - 2).ids) for caption in captions]
    batches = [lengths[at : at + arguments.batch] for at in range(0, len(lengths), arguments.batch)]
    own = sum(lengths)
    print(
        f"{len(captions):,} captions of {own / len(captions):.1f} tokens, {len(batches)} batches of {arguments.batch}"
    )
    print(f"{'':38}{'tokens a token':>16}{'padded share':>14}{'groups a batch':>16}")
    whole = len(captions) * CONTEXT
    print(f"{'every row padded to 77':38}{whole / own:16.2f}{1 - own / whole:14.1%}{1:16}")
    for name, sizes in (
        ("before: one group a batch", BEFORE),
        (f"now: groups from {ON_GPU.group:,} tokens on", ON_GPU),
    ):
        counted = [tokens_of(batch, sizes) for batch in batches]
        padded, groups = (sum(column) for column in zip(*counted, strict=True))
        print(f"{name:38}{padded / own:16.2f}{1 - own / padded:14.1%}{groups / len(batches):16.1f}")


if __name__ == "__main__":
    main()
