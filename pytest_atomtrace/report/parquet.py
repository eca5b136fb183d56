"""The one door to Parquet: a run's tables as files that appear together when all of them are whole.

pyarrow is an extra and large; nothing else in the package knows it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.capture.files import whole_file
from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.report.export_rows import Words
from pytest_atomtrace.report.export_schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    import pyarrow as pa
    import pyarrow.parquet as pq

    from pytest_atomtrace.report.export_schema import Column, Table

__all__ = ["Tables", "require_pyarrow"]

# Pieces of a table are gathered until a row group has this many rows: readers like them large, memory small.
_GROUP_ROWS = 1 << 17


def require_pyarrow() -> None:
    """Raise ConfigError, naming the extra, where pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise ConfigError(
            "an export needs pyarrow, which comes with the extra: pip install 'pytest-atomtrace[parquet]'"
        ) from None


class Tables:
    """Files ``<out>/<table>/<key>.parquet`` of one run. `rows` counts what was written, by table.

    All of them get their names when the block ends well, and none otherwise.

    Raises:
        StoreError: `out` cannot be written.

    """

    def __init__(self, out: Path, key: str, tables: Sequence[Table], *, version: str) -> None:
        self._paths = {table.name: out / table.name / f"{key}.parquet" for table in tables}
        self._tables = {table.name: table for table in tables}
        self._version = version
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._waiting: dict[str, list[pa.Table]] = {table.name: [] for table in tables}
        self._stack = contextlib.ExitStack()
        self.rows = dict.fromkeys(self._paths, 0)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(self._paths.values())

    def __enter__(self) -> Tables:
        """Open all files: a table without rows is a file too, so that patterns of names always match."""
        import pyarrow.parquet as pq

        with contextlib.ExitStack() as stack:
            for name, path in self._paths.items():
                place = stack.enter_context(whole_file(path))
                writer = pq.ParquetWriter(place, _schema(self._tables[name], self._version), compression="zstd")
                self._writers[name] = stack.enter_context(writer)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or not self._paths:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            for name in self._paths:
                self._flush(name)

    def drop(self) -> None:
        """Give up: no file is to appear."""
        self._paths = {}
        self._stack.__exit__(_Dropped, _Dropped(), None)

    def add(self, name: str, columns: Mapping[str, object], constant: Mapping[str, object]) -> None:
        """Append rows: `columns` of equal length, and `constant` values for all of them."""
        import pyarrow as pa

        table, schema = self._tables[name], self._writers[name].schema
        length = max(len(one) for one in columns.values())  # type: ignore[arg-type]  # all are sized
        arrays = [
            _array(column, columns[column.name], schema.field(column.name).type)
            if column.name in columns
            else _repeated(column, constant[column.name], length, schema.field(column.name).type)
            for column in table.columns
        ]
        self._waiting[name].append(pa.Table.from_arrays(arrays, schema=schema))
        self.rows[name] += length
        if sum(one.num_rows for one in self._waiting[name]) >= _GROUP_ROWS:
            self._flush(name)

    def _flush(self, name: str) -> None:
        import pyarrow as pa

        waiting = self._waiting[name]
        if any(one.num_rows for one in waiting):
            whole = pa.concat_tables(waiting).unify_dictionaries().combine_chunks()
            self._writers[name].write_table(whole, row_group_size=_GROUP_ROWS)
        waiting.clear()


def _schema(table: Table, version: str) -> pa.Schema:
    import pyarrow as pa

    kinds = {
        "text": pa.string(),
        "word": pa.dictionary(pa.int32(), pa.string()),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "instant": pa.timestamp("us"),
        "words": pa.list_(pa.string()),
    }
    fields = [pa.field(one.name, kinds[one.kind], metadata={"about": one.about}) for one in table.columns]
    about = {"atomtrace.schema": SCHEMA, "atomtrace.table": table.name, "atomtrace.row": table.row}
    return pa.schema(fields, metadata={**about, "atomtrace.version": version})


def _array(column: Column, values: object, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if isinstance(values, Words):
        return pa.DictionaryArray.from_arrays(pa.array(values.places), pa.array(_clean(values.words), pa.string()))
    if isinstance(values, np.ndarray):
        return pa.array(np.ma.getdata(values), kind, mask=np.ma.getmaskarray(values))
    assert isinstance(values, list), column
    if column.kind == "instant":
        values = [None if one is None else round(one * 1e6) for one in values]
    if column.kind in ("text", "word"):
        values = _clean(values)
    # By way of text: pyarrow encodes a list of Python text as a dictionary only then.
    plain = pa.array(values, pa.string() if column.kind == "word" else kind)
    return plain.dictionary_encode().cast(kind) if column.kind == "word" else plain


def _clean(values: Sequence[object]) -> list[str | None]:
    # A kernel's name may hold bytes that are no UTF-8; Parquet's text must be.
    return [None if one is None else str(one).encode("utf-8", "replace").decode() for one in values]


def _repeated(column: Column, value: object, length: int, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if column.kind == "word" and value is not None:
        places = pa.array(np.zeros(length, np.int32))
        return pa.DictionaryArray.from_arrays(places, pa.array(_clean([value]), pa.string()))
    return pa.nulls(length, kind) if value is None else _array(column, [value] * length, kind)


class _Dropped(Exception):  # noqa: N818  # no error: it tells the files' own blocks that they did not end well
    pass
