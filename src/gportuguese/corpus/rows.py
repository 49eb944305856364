"""The rows of a file by its format: JSON, JSON lines, CSV, Parquet or text, one at a time.

A reader can go on after a row: it returns to that place by seeking, by reading over it in packed
files, and by skipping row groups in Parquet.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from contextlib import nullcontext
from decimal import Decimal
from itertools import chain, groupby
from typing import IO, Any, Literal, NamedTuple

from gportuguese.corpus.files import File
from gportuguese.corpus.pool import CorpusError

_BATCH_ROWS = 256  # of a Parquet file in memory
_BUFFER_BYTES = 1 << 22  # of each of its columns
_CHUNK_CHARS = 1 << 16  # of a .json file
_MAX_CHARS = 1 << 27  # of one line, value of a .json file or field of a .csv file
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}  # of .csv files; the first is usual


class Mark(NamedTuple):
    """A place between two rows of a file."""

    number: int = 0
    """How many lines or rows come before it."""
    offset: int = 0
    """Bytes of the unpacked file before it, if the format has lines."""


START = Mark()


class Row(NamedTuple):
    """A row, with its columns by name, or another value that JSON can hold."""

    where: str
    """File and line."""
    fields: Any
    mark: Mark
    """The place after it."""
    read: int
    """How many bytes of the file have been read."""


def read_rows(
    file: File, columns: tuple[str, ...], unit: Literal["file", "line", "paragraph"], mark: Mark
) -> Iterator[Row]:
    """Yields the rows of a file after a mark. `unit` says what is a row of a .txt file.

    `columns` begins with that of the text. Of Parquet files only they are read; the others are there
    as None. Raises `CorpusError` with file and line if a row cannot be read.
    """
    with file.open() as raw:
        if file.kind == ".parquet":
            yield from _parquet_rows(file, raw, columns, mark)
        elif file.kind == ".txt":
            yield from _txt_rows(file, raw, columns[0], unit, mark)
        elif file.kind == ".csv":
            yield from _csv_rows(file, raw, columns[0], mark)
        elif file.kind == ".json":
            yield from _json_rows(file, raw, mark)
        else:
            yield from _jsonl_rows(file, raw, mark)


class _Line(NamedTuple):
    text: str
    mark: Mark
    """The place after it."""
    read: int


def _lines(file: File, raw: IO[bytes], mark: Mark = START) -> Iterator[_Line]:
    """The lines after a mark."""
    stream = file.unpacked(raw)
    number, offset = mark
    if offset:
        _skip(stream, offset, is_packed=bool(file.packing))
    while line := stream.readline(_MAX_CHARS + 1):
        number += 1
        offset += len(line)
        if len(line) > _MAX_CHARS:
            raise CorpusError(f"{file.place}:{number}: a line of more than {_MAX_CHARS:,} bytes")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"{file.place}:{number}: not UTF-8 ({error.reason}, byte {error.start + 1} of the "
                "line); save the file as UTF-8"
            ) from error
        yield _Line(text, Mark(number, offset), raw.tell())


def _skip(stream: IO[bytes], offset: int, is_packed: bool) -> None:
    if not is_packed:
        stream.seek(offset)
        return
    while offset and (chunk := stream.read(min(offset, 1 << 20))):
        offset -= len(chunk)


def _jsonl_rows(file: File, raw: IO[bytes], mark: Mark) -> Iterator[Row]:
    for line in _lines(file, raw, mark):
        if not line.text.strip():
            continue
        number = line.mark.number
        try:
            row = json.loads(line.text, parse_int=Decimal)  # Python limits the digits of an int
        except json.JSONDecodeError as error:
            raise CorpusError(
                f"{file.place}:{number}, column {error.colno}: broken JSON ({error.msg}); each line "
                "has to be one JSON object"
            ) from error
        except RecursionError as error:
            raise CorpusError(f"{file.place}:{number}: JSON nested too deeply") from error
        yield Row(f"{file.name}:{number}", row, line.mark, line.read)


def _json_rows(file: File, raw: IO[bytes], mark: Mark) -> Iterator[Row]:
    """Of a list of objects, or of objects one after the other."""
    for number, row in enumerate(_json_values(file, raw), start=1):
        if number > mark.number:
            yield Row(f"{file.name}:{number}", row, Mark(number), raw.tell())


def _json_values(file: File, raw: IO[bytes]) -> Iterator[Any]:
    stream, decode = file.unpacked(raw), codecs.getincrementaldecoder("utf-8-sig")().decode
    scan = json.JSONDecoder(parse_int=Decimal).raw_decode
    text, start, line, is_list, is_end = "", 0, 1, False, False
    is_first, need = True, 1
    while True:
        while len(text) - start < need and not is_end:  # more text
            chunk = stream.read(max(_CHUNK_CHARS, need))
            try:
                line += text.count("\n", 0, start)
                text, start, is_end = text[start:] + decode(chunk, not chunk), 0, not chunk
            except UnicodeDecodeError as error:
                raise CorpusError(
                    f"{file.place}: not UTF-8 ({error.reason}); save the file as UTF-8"
                ) from error
        while start < len(text) and text[start] in " \t\n\r,":
            start += 1
        if start == len(text):
            if is_end:
                return
            continue
        if is_first and text[start] == "[":
            is_first, is_list = False, True
            start += 1
            continue
        is_first = False
        if is_list and text[start] == "]":
            return
        try:
            value, end = scan(text, start)
        except json.JSONDecodeError as error:
            is_cut = error.msg.startswith("Unterminated") or error.pos > len(text) - 16
            need = 2 * (len(text) - start)
            if is_cut and not is_end and need < _MAX_CHARS:
                continue
            place = line + text.count("\n", 0, error.pos)
            raise CorpusError(
                f"{file.place}:{place}: broken JSON ({error.msg}); the file has to be a list of "
                "objects, or one object after the other"
            ) from error
        except RecursionError as error:
            raise CorpusError(f"{file.place}:{line}: JSON nested too deeply") from error
        if end == len(text) and not is_end:  # a number may go on
            need = len(text) - start + 1
            continue
        yield value
        start, need = end, 1


def _separator(header: str, column: str) -> str:
    """The separator with which a header names `column`; if none does, the one that gives most names.

    >>> _separator("id;title, subtitle;text", "text")
    ';'
    """
    names = {each: next(csv.reader([header], delimiter=each), []) for each in _SEPARATORS}
    return max(names, key=lambda each: (column in names[each], len(names[each])))


def _csv_rows(file: File, raw: IO[bytes], column: str, mark: Mark) -> Iterator[Row]:
    csv.field_size_limit(_MAX_CHARS)
    last = _Line("", START, 0)

    def texts(lines: Iterator[_Line]) -> Iterator[str]:
        nonlocal last
        for last in lines:
            yield last.text

    try:
        with file.open() if mark.number else nullcontext(raw) as top:
            lines = texts(_lines(file, top))
            header = next((line for line in lines if line.strip()), "")
            separator = _separator(header, column)
            rows = csv.reader(chain([header], lines), delimiter=separator, strict=True)
            names = next((row for row in rows if row), [])
        if mark.number:
            rows = csv.reader(texts(_lines(file, raw, mark)), delimiter=separator, strict=True)
            last = _Line("", mark, 0)
        number = last.mark.number + 1
        for row in rows:
            if len(row) > len(names):
                raise CorpusError(
                    f"{file.place}:{number}: {len(row)} fields, but the first line names "
                    f"{len(names)}; put fields that hold {_SEPARATORS[separator]} in quotes"
                )
            if row:
                fields = dict(zip(names, row, strict=False))
                yield Row(f"{file.name}:{number}", fields, last.mark, last.read)
            number = last.mark.number + 1
    except csv.Error as error:
        raise CorpusError(f"{file.place}:{last.mark.number}: broken CSV ({error})") from error


def _txt_rows(
    file: File, raw: IO[bytes], column: str, unit: Literal["file", "line", "paragraph"], mark: Mark
) -> Iterator[Row]:
    lines = (
        line._replace(text=line.text.replace("\r\n", "\n")) for line in _lines(file, raw, mark)
    )
    if unit == "file":
        if mark.number == 0:
            parts = list(lines)
            text, end = "".join(part.text for part in parts), parts[-1].mark if parts else mark
            yield Row(
                file.name, {column: text}, end._replace(number=max(end.number, 1)), raw.tell()
            )
    elif unit == "line":
        for line in lines:
            if line.text.strip():
                where = f"{file.name}:{line.mark.number}"
                yield Row(where, {column: line.text}, line.mark, line.read)
    else:
        for is_text, group in groupby(lines, lambda line: bool(line.text.strip())):
            if is_text:
                texts, marks, read = zip(*group, strict=True)
                where = f"{file.name}:{marks[0].number}"
                yield Row(where, {column: "".join(texts)}, marks[-1], read[-1])


def _parquet_rows(
    file: File, raw: IO[bytes], columns: tuple[str, ...], mark: Mark
) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(raw, buffer_size=_BUFFER_BYTES) as table:
            nothing = dict.fromkeys(table.schema_arrow.names)
            wanted = [column for column in dict.fromkeys(columns) if column in nothing]
            total = max(table.metadata.num_rows, 1)
            for group in range(table.num_row_groups):  # one by one: pyarrow would fetch them all
                size = table.metadata.row_group(group).num_rows
                if number + size <= mark.number:
                    number += size
                    continue
                for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=wanted):
                    for row in batch.to_pylist():
                        number += 1
                        if number > mark.number:
                            read = (file.size or 0) * number // total
                            yield Row(f"{file.name}:{number}", nothing | row, Mark(number), read)
    except (pa.ArrowException, ValueError) as error:
        raise CorpusError(f"cannot read {file.place} after row {number:,}: {error}") from error
