"""Results of queries as Parquet files in row groups: few winners of a long table, or a score of each of its pairs.

    write_strongest   pair, first, second, test_pair, side (proponent or opponent), rank, score[, standard_error]
    write_self        pair, first, second, score

`pair` is the number of the pair in its table, 0 the first; items are named by their ids. Sign, unit and provenance are
in the metadata of the schema and beside the file, which is replaced whole, as `table_file` does.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.files import pyarrow_module
from tracin_func.results.files.table import ROW_GROUP, check_table, encodable, replace_table
from tracin_func.results.names import STANDARD_ERROR

SCORE = "score"
SIDES = ("proponent", "opponent")


class Ranked(Protocol):
    """The strongest pairs of one side of one test pair, strongest first, each [n]; see `queries.strongest.Winners`."""

    @property
    def rows(self) -> Tensor: ...
    @property
    def scores(self) -> Tensor: ...
    @property
    def first(self) -> Tensor: ...
    @property
    def second(self) -> Tensor: ...


def write_strongest(
    path: str | Path,
    proponents: Sequence[Ranked],
    opponents: Sequence[Ranked],
    *,
    item_ids: Sequence[str],
    test_ids: Sequence[str],
    provenance: Mapping[str, Any],
    standard_errors: Sequence[Sequence[Tensor]] | None = None,
) -> Path:
    """Write the strongest pairs of each test pair, proponents first; only their ids are looked up.

    Args:
        path: ends in `.parquet`.
        proponents: of each test pair.
        opponents: of each test pair.
        item_ids: id of each item, [items].
        test_ids: name of each test pair, [tests].
        provenance: the record of the scores, see `tracin_func.provenance`; sign and unit are also told by themselves.
        standard_errors: of each test pair those of its proponents and of its opponents, where scores are estimates.

    Returns:
        The real path of the file.

    Raises:
        UsageError, InputError, OutputError: as `table_file.write_table`.
    """

    def rows() -> Iterator[dict[str, list[Any]]]:
        both = zip(proponents, opponents, strict=True)
        for column, (test, winners) in enumerate(zip(test_ids, both, strict=True)):
            for number, (side, ranked) in enumerate(zip(SIDES, winners, strict=True)):
                count = len(ranked.rows)
                error = {} if standard_errors is None else {STANDARD_ERROR: standard_errors[column][number].tolist()}
                yield {
                    "pair": ranked.rows.tolist(),
                    "first": [item_ids[place] for place in ranked.first.tolist()],
                    "second": [item_ids[place] for place in ranked.second.tolist()],
                    "test_pair": [test] * count,
                    "side": [side] * count,
                    "rank": list(range(1, count + 1)),
                    SCORE: ranked.scores.tolist(),
                    **error,
                }

    texts = ("first", "second", "test_pair", "side")
    estimated = () if standard_errors is None else (STANDARD_ERROR,)
    return _write(path, ("pair", *texts, "rank", SCORE, *estimated), texts, _gathered(rows()), provenance)


def write_self(
    path: str | Path,
    blocks: Iterable[tuple[int, Tensor, Tensor, Tensor]],
    *,
    item_ids: Sequence[str],
    provenance: Mapping[str, Any],
) -> Path:
    """Write the self-influence of every pair, block by block as it is computed; never held whole.

    Args:
        path: ends in `.parquet`.
        blocks: number of the first pair, positions of items a and b, and scores, each [pairs of the block].
        item_ids: id of each item, [items].
        provenance: as of `write_strongest`.

    Returns:
        The real path of the file.

    Raises:
        UsageError, InputError, OutputError: as `table_file.write_table`; and what `blocks` raises, when nothing at
            `path` has changed.
    """
    arrow = pyarrow_module("pyarrow")
    ids = arrow.array([encodable(name) for name in item_ids], arrow.string())

    def rows() -> Iterator[dict[str, Any]]:
        for start, first, second, scores in blocks:
            yield {
                "pair": arrow.array(range(start, start + len(scores)), arrow.int64()),
                "first": arrow.DictionaryArray.from_arrays(arrow.array(first.int().numpy()), ids),
                "second": arrow.DictionaryArray.from_arrays(arrow.array(second.int().numpy()), ids),
                SCORE: arrow.array(scores.numpy()),
            }

    return _write(path, ("pair", "first", "second", SCORE), ("first", "second"), rows(), provenance)


def _gathered(parts: Iterable[dict[str, list[Any]]]) -> Iterator[dict[str, list[Any]]]:
    """Small parts together, up to a row group."""
    held: dict[str, list[Any]] = {}
    for part in parts:
        for name, values in part.items():
            held.setdefault(name, []).extend(values)
        if len(held[SCORE]) >= ROW_GROUP:
            yield held
            held = {}
    if held:
        yield held


def _write(
    path: str | Path,
    columns: Sequence[str],
    texts: Sequence[str],
    parts: Iterable[Mapping[str, Any]],
    provenance: Mapping[str, Any],
) -> Path:
    if Path(path).suffix != ".parquet":
        raise UsageError(f"`path` should end in .parquet. Got {path}.")
    check_table(path)
    arrow, parquet = pyarrow_module("pyarrow"), pyarrow_module("pyarrow.parquet")
    kinds = {"pair": arrow.int64(), "rank": arrow.int64(), SCORE: arrow.float64(), STANDARD_ERROR: arrow.float64()}
    kinds |= dict.fromkeys(texts, arrow.dictionary(arrow.int32(), arrow.string()))

    def write(stream: BinaryIO, metadata: Mapping[str, str]) -> None:
        schema = arrow.schema([(name, kinds[name]) for name in columns], metadata=dict(metadata))
        with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
            for part in parts:
                arrays = [_array(arrow, part[name], kinds[name]) for name in columns]
                writer.write_table(arrow.Table.from_arrays(arrays, schema=schema), row_group_size=ROW_GROUP)

    words = {name: str(provenance[name]) for name in ("sign", "unit") if name in provenance}
    return replace_table(path, write, metadata=words, provenance={SCORE: provenance})


def _array(arrow: Any, values: Any, kind: Any) -> Any:
    if not isinstance(values, list):
        return values
    if not arrow.types.is_dictionary(kind):
        return arrow.array(values, kind)
    return arrow.array([encodable(value) for value in values], arrow.string()).dictionary_encode()
