"""The one door to writing files: they appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from typing import TYPE_CHECKING

import orjson

from pytest_atomtrace.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "append_bytes",
    "json_bytes",
    "link_or_copy",
    "move",
    "numbered_children",
    "read_json",
    "whole_file",
    "write_bytes",
    "write_json",
]


def numbered_children(directory: Path) -> list[Path]:
    """Directories called 1, 2, ..., 10, ... in this order: the windows of a case; none of a directory that is gone."""
    if not directory.is_dir():
        return []
    return sorted(
        (one for one in directory.iterdir() if one.name.isdecimal() and one.is_dir()), key=lambda one: int(one.name)
    )


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name in the same directory, sync it, and rename it to `path`.

    Raises:
        StoreError: the directory cannot be written or the disk is full.

    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write, piece by piece, what becomes `path` when the block ends well; of a failed block nothing stays.

    Raises:
        StoreError: the directory cannot be written or the disk is full.

    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(path: Path, value: object) -> None:
    """Write `value` as `json_bytes`, atomically."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: object) -> bytes:
    """`value` as indented JSON in the order of its keys; equal values give equal bytes."""
    option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    try:
        return orjson.dumps(value, option=option)
    except TypeError:  # the environment may hold bytes that are no UTF-8, and so may a log line
        return orjson.dumps(_without_surrogates(value), option=option)


def append_bytes(path: Path, data: bytes) -> None:
    """Add to a file that others write too, in one piece.

    Raises:
        StoreError: it cannot be written or the disk is full.

    """
    try:
        with path.open("ab", buffering=0) as stream:
            written = stream.write(data)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
    if written != len(data):
        raise StoreError(f"{path} cannot be written: {written} of {len(data)} bytes went in")


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_surrogates(one) for one in value]
    return value


def read_json(path: Path) -> dict[str, object] | None:
    """The JSON object in `path`, None if there is no file.

    Raises:
        StoreError: the file is there but is not a JSON object.

    """
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        value = orjson.loads(text)
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} is damaged: it holds {type(value).__name__}, not an object")
    return value


def move(source: Path, target: Path) -> None:
    """Move one file; across file systems the copy gets its final name only when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.replace(target)
    except OSError:
        partial = target.with_name(f".{target.name}.part")
        shutil.copyfile(source, partial)
        partial.replace(target)
        source.unlink()


def link_or_copy(source: Path, target: Path) -> None:
    """Give `source` a second name, or copy it where links are refused; the source stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        partial = target.with_name(f".{target.name}.part")
        shutil.copyfile(source, partial)
        partial.replace(target)
