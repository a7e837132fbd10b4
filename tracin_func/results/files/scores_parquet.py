"""Long tables as Parquet: int64, float64, bool; ids dictionary-encoded; sign, unit and provenance in the metadata."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tracin_func.errors import InputError
from tracin_func.results.files.format import REMEDY, Json
from tracin_func.results.files.table import table_format

ROW_GROUP = 1 << 20  # rows read at a time


def _write(stream: BinaryIO, blocks: Iterator[Any], metadata: Mapping[str, str]) -> None:
    import pyarrow.parquet

    first = next(blocks)
    schema = first.schema.with_metadata(dict(metadata))
    with pyarrow.parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        writer.write_table(first.cast(schema), row_group_size=ROW_GROUP)
        for block in blocks:
            writer.write_table(block.cast(schema), row_group_size=ROW_GROUP)


def _read(path: Path) -> dict[str, list[Json]]:
    import pyarrow.parquet

    try:
        columns: dict[str, list[Json]] = pyarrow.parquet.read_table(path).to_pydict()
    except (OSError, ValueError, pyarrow.ArrowException) as error:  # ValueError: a name or an id is not UTF-8
        raise InputError(f"`{path}` is not Parquet: {str(error).partition(chr(10))[0]} {REMEDY}") from error
    return columns


PARQUET = table_format("parquet", "Parquet", _write, _read)
