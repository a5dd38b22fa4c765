"""Rows of .csv and .tsv text: the separator, cells in quotes, and rows that break the rules.

A broken row never takes its neighbours with it: if a quote does not close, the line with that quote is broken, and
reading goes on with the next line. At most `MOST_WITHIN` characters are kept for that.

    a line                          is read as
    a.jpg,24" screen,10             a.jpg | 24" screen | 10
    a.jpg,"24" screen, flat",10     a.jpg | 24" screen, flat | 10
    a.jpg,"the \\"best\\" hat",10     a.jpg | the "best" hat | 10
    a.jpg, "red, blue", 10          a.jpg | red, blue | 10
    "a.jpg,""red, blue"",10";;      a.jpg | red, blue | 10
    a.jpg,red,10;;;                 a.jpg | red | 10
    a.jpg,"red,10                   broken

The last two forms come from spreadsheets that expect another separator; they are told by the first rows.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice

MOST_WITHIN = 2**22
"""Largest number of characters of a row's lines behind the first one."""
_SEPARATORS = (",", ";", "\t", "|")
_EXCEL = re.compile(r'"?sep=([^\w"])"?[,;]*\s*', re.IGNORECASE)
_WRAPPED = re.compile(r'"((?:[^"]|"")*)"[,;]*\s*')
_PEEKED = 10
_FIELD_SIZE = 2**27


class Broken(str):
    """Sentence that stands in place of a row's cells and says why they cannot be read."""


@dataclass(frozen=True)
class Opened:
    """A table's text from its header on.

    Attributes:
        number: number of the lines before the header.
        spaced: True if blanks behind separators do not belong to the cells.
    """

    separator: str
    number: int
    lines: Iterator[str]
    spaced: bool = False


def opened(lines: Iterator[str], usual: str) -> Opened:
    """Find a table's separator and its header.

    The separator is the one that Excel's first line `sep=;` names. Else it is the first one, beginning with `usual`, that
    splits the first two rows into equal numbers of cells, or the most frequent one of the first row.
    """
    first = list(islice(lines, _PEEKED))
    if first and (named := _EXCEL.fullmatch(first[0])):
        return Opened(named[1], 1, chain(first[1:], lines))
    rows = [line for line in first if line.strip()]
    lines = chain(first, lines)
    if len(rows) > 1 and all(map(_WRAPPED.fullmatch, rows)) and all(map(_separates, map(_unwrapped, rows))):
        lines, rows = map(_unwrapped, lines), [*map(_unwrapped, rows)]
    tail = next(
        (mark for mark in ";," if rows and all(row.rstrip().endswith(2 * mark) for row in rows[1:] or rows)), ""
    )
    separator = _separator([row.rstrip().rstrip(tail) if tail else row for row in rows[:2]], usual)
    if not rows or separator not in rows[0]:
        return Opened(separator, 0, lines)
    if tail not in ("", separator):
        lines = (line.rstrip().rstrip(tail) + "\n" for line in lines)
    names = rows[0].split(separator)[1:]
    quoted = re.compile(rf'{re.escape(separator)} +"')
    return Opened(separator, 0, lines, spaced=all(name[:1] == " " for name in names) or any(map(quoted.search, rows)))


def split(
    lines: Iterator[str], separator: str, number: int = 0, spaced: bool = False
) -> Iterator[tuple[int, list[str] | Broken]]:
    """Yield the cells of each row that is not blank, with the number of the row's last line.

    Args:
        lines: lines with their ends; the first row tells how many cells a row has.
        number: number of the last line before these.
        spaced: blanks behind separators do not belong to the cells.
    """
    csv.field_size_limit(_FIELD_SIZE)
    waiting: deque[str] = deque()
    held: list[str] = []
    width = 0
    while True:
        reader = csv.reader(
            _remembered(lines, waiting, held), delimiter=separator, strict=True, skipinitialspace=spaced
        )
        row: list[str] | Broken
        try:
            for cells in reader:
                if len(cells) != width and width and _doubtful(cells, width, held, separator):
                    row = cells if len(held) == 1 else _broken()
                    break
                number += len(held)
                held.clear()
                if cells and (cells[0] or any(cells)):
                    width = width or len(cells)
                    yield number, cells
            else:
                return
        except csv.Error as error:
            row = _broken(error)
        escaped = _escaped(lines, waiting, held, separator, width)
        if escaped is None:
            waiting.extendleft(reversed(held[1:]))
            del held[1:]
        row = escaped or _by_hand(held[0], separator, width) or row
        number += len(held)
        held.clear()
        yield number, row


def _remembered(lines: Iterator[str], waiting: deque[str], held: list[str]) -> Iterator[str]:
    """Yield the lines that wait and then those of the table, and keep them in `held`, which is emptied after each row."""
    while waiting:
        held.append(waiting.popleft())
        yield held[-1]
    size = 0
    for line in lines:
        if held:
            size += len(line)
            if size > MOST_WITHIN:
                waiting.append(line)
                raise csv.Error
        else:
            size = 0
        held.append(line)
        yield line


def _broken(error: csv.Error | None = None) -> Broken:
    if error is not None and "field larger" in str(error):
        return Broken(f"has a cell of more than {_FIELD_SIZE:,} characters; shorten it")
    return Broken('has a quote (") that does not close; close it, and write quotes within a cell twice ("")')


def _doubtful(cells: Sequence[str], width: int, held: Sequence[str], separator: str) -> bool:
    """Tell whether a row of the wrong width may have swallowed other rows, or has a backslash before a separator."""
    if len(held) == 1:
        return "\\" in held[0] and not _fits(cells, width)
    return width > 1 and any(_count(line, separator) == width for line in held[1:])


def _fits(cells: Sequence[str], width: int) -> bool:
    return len(cells) >= width > 0 and not any(cells[width:])


def _escaped(
    lines: Iterator[str], waiting: deque[str], held: list[str], separator: str, width: int
) -> list[str] | None:
    r"""Return the cells of the row that begins with the lines held, read with `\"` as a quote; None if that makes no row.

    Lines that the row does not need go back to those that wait; without a row, those held stay so.
    """
    if not any("\\" in line for line in held):
        return None
    kept = list(held)
    waiting.extendleft(reversed(held))
    held.clear()
    again = (line.replace("\\N", "\\\\N") for line in _remembered(lines, waiting, held))  # \N is MySQL's empty cell
    try:
        cells = next(csv.reader(again, delimiter=separator, strict=True, escapechar="\\"), [])
    except csv.Error:
        cells = []
    if _fits(cells, width):
        return cells
    waiting.extendleft(reversed(held))
    held[:] = [waiting.popleft() for _ in kept]
    return None


def _by_hand(line: str, separator: str, width: int) -> list[str] | None:
    """Return the cells of a line in which a quote closes a cell only before a separator; None if that makes no row."""
    line = line.rstrip("\r\n")
    cells: list[str] = []
    end = -1
    while end < len(line):
        found = _cell(separator).match(line, end + 1)
        assert found is not None  # an empty cell matches anywhere
        if found[1] is None and found[2].startswith('"') and found[2].count('"') == 1:
            return None
        cells.append(found[2] if found[1] is None else found[1].replace('""', '"'))
        end = found.end()
    return cells if _fits(cells, width) else None


@cache
def _cell(separator: str) -> re.Pattern[str]:
    mark = re.escape(separator)
    return re.compile(rf'"((?:[^"]|"(?!{mark}|$))*)"(?={mark}|$)|([^{mark}]*)')


def _separates(row: str) -> bool:
    return any(mark in row for mark in _SEPARATORS)


def _unwrapped(line: str) -> str:
    """Return the row that a spreadsheet took for a single cell."""
    found = _WRAPPED.fullmatch(line)
    return line if found is None else found[1].replace('""', '"') + "\n"


def _separator(rows: Sequence[str], usual: str) -> str:
    counts = {mark: [_count(row, mark) for row in rows] for mark in (usual, *_SEPARATORS)}
    several = {mark: each for mark, each in counts.items() if each and each[0] > 1}
    for mark, (header, *first) in several.items():
        if first == [header]:
            return mark
    return usual if usual in several else max(several, key=lambda mark: several[mark][0], default=usual)


def _count(line: str, separator: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=separator), []))
    except csv.Error:
        return 0
