"""Events of the past, to be replayed: from a file, or from the project's own `data` module."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from rtml import instants
from rtml.columns import TIMESTAMP
from rtml.define.source import EventSource
from rtml.errors import RequestError, near_miss
from rtml.projection import INGESTED_AT

READERS: dict[str, Callable[..., pl.DataFrame]] = {
    ".parquet": lambda path, schema: pl.read_parquet(path),  # noqa: ARG005 - it knows its own types
    ".csv": lambda path, schema: pl.read_csv(path, schema_overrides=schema),
    ".ndjson": lambda path, schema: pl.read_ndjson(path, schema_overrides=schema),
    ".jsonl": lambda path, schema: pl.read_ndjson(path, schema_overrides=schema),
}


def read_history(
    source: EventSource, features: str, path: Path | None, stamps: str, start: str | None, end: str | None
) -> pl.DataFrame:
    """Return a source's history, of a file or the project's own, that arrived in `[start, end)`.

    Raises:
        RequestError: there is none, or it cannot be read.
    """
    events = read_file(source, path, stamps) if path else read_example(source, features)
    return between(events, start, end)


def read_file(source: EventSource, path: Path, stamps: str = INGESTED_AT) -> pl.DataFrame:
    """Return a file's events in the contract's types, with their stamps in `ingested_at`.

    Without a column of stamps, an event is taken to have arrived when it happened.

    Raises:
        RequestError: no such file or kind of file, nothing that can be read as one, or no column of event times.
    """
    reader = READERS.get(path.suffix)
    if reader is None:
        raise RequestError(f"--from must be a {', '.join(READERS)} file; got {str(path)!r}")
    if not path.is_file():
        raise RequestError(f"--from: there is no file {str(path)!r}")
    with _told(str(path)):
        frame = reader(path, None if path.suffix == ".parquet" else _as_written(source, path, stamps))
    if source.timestamp not in frame.columns:
        near = near_miss(source.timestamp, frame.columns)
        raise RequestError(f"{path} has no column {source.timestamp!r}, the source's event time.{near}")
    if stamps not in frame.columns:
        frame = frame.with_columns(pl.col(source.timestamp).alias(INGESTED_AT))
    elif stamps != INGESTED_AT:
        frame = frame.rename({stamps: INGESTED_AT})
    return _timed(source, frame, str(path), stamps)


def read_example(source: EventSource, features: str) -> pl.DataFrame:
    """Return the events of the project's own history: `<source>()` in the module `data` beside the definitions.

    Raises:
        RequestError: there is no such module or function.
    """
    function = getattr(_data_module(features), source.name, None)
    if not callable(function):
        raise RequestError(
            f"no function {source.name!r} in a module 'data' beside {features!r}: name a file with --from"
        )
    return _timed(source, function(), f"{source.name}() of module 'data'")


def between(frame: pl.DataFrame, start: str | None, end: str | None) -> pl.DataFrame:
    """Return the events with stamps in `[start, end)`."""
    stamp = pl.col(INGESTED_AT)
    if start is not None:
        frame = frame.filter(stamp >= instants.to_datetime(instants.to_instant(start)))
    if end is not None:
        frame = frame.filter(stamp < instants.to_datetime(instants.to_instant(end)))
    return frame


def _as_written(source: EventSource, path: Path, stamps: str) -> dict[str, pl.DataType]:
    """Return the types to read text as: the contract's, with times as they stand."""
    types = {**source.frame_schema, stamps: TIMESTAMP}
    present = (pl.scan_csv(path) if path.suffix == ".csv" else pl.scan_ndjson(path)).collect_schema()
    return {name: present[name] if dtype == TIMESTAMP else dtype for name, dtype in types.items() if name in present}


def _timed(source: EventSource, frame: pl.DataFrame, where: str, stamps: str = INGESTED_AT) -> pl.DataFrame:
    """Bring RFC 3339 text and integer microseconds to timestamps; of stamps that were copied, the original is named."""
    names = [*(name for name, column in source.columns.items() if column.is_timestamp), INGESTED_AT]
    for name in dict.fromkeys(names):
        if name in frame.columns:
            at = f"{where}: column {(stamps if name == INGESTED_AT else name)!r}"
            with _told(at):
                frame = frame.with_columns(_timestamp(name, frame.schema[name], at))
    return frame


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Say in one line where what Polars could not read is."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        raise RequestError(f"{where}: {str(error).strip().partition(chr(10))[0]}") from None


def _timestamp(name: str, dtype: pl.DataType, at: str) -> pl.Expr:
    column = pl.col(name)
    if dtype == pl.String:
        return column.str.to_datetime(time_unit="us", time_zone="UTC")
    if dtype.is_integer():
        return pl.from_epoch(column, "us").dt.replace_time_zone("UTC")
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        return column.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    raise RequestError(f"{at} must be times with a zone or integer microseconds; got {dtype}")


def _data_module(features: str) -> object:
    if features.endswith(".py"):
        path = Path(features).with_name("data.py")
        spec = importlib.util.spec_from_file_location("rtml_data", path) if path.is_file() else None
        if spec is None or spec.loader is None:
            return None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    name = f"{features.rpartition('.')[0]}.data".lstrip(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise
