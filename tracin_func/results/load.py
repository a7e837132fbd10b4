"""Loading result files of this package, and of older scripts, as results."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tracin_func.errors import InputError, UsageError
from tracin_func.results.files.format import REMEDY, Column, Parts
from tracin_func.results.files.read import ResultFile, read_result, recorded_classes
from tracin_func.results.frame import PairRecord
from tracin_func.results.influence import Influence, SelfInfluence
from tracin_func.results.names import SELF_COLUMN, few, meaning_of, start_of
from tracin_func.results.partial import held, holds
from tracin_func.results.run import SCORES, Run
from tracin_func.results.scored import Loaded
from tracin_func.results.top import SCORE, Strongest, TopInfluences, Winners
from tracin_func.results.views import items_of_ids, number, numbers
from tracin_func.task.method import NONE, Method, Projection


def load(path: str | Path, *, column: str | None = None) -> SelfInfluence | Influence | TopInfluences:
    """The scores of a JSON, CSV or Parquet file with their provenance, as the class that was saved.

    Accessing what the file lacks, such as losses or the scores of single checkpoints, raises an `InputError`. A value
    that is not a finite number becomes NaN. If the file holds both kinds of scores, influence is returned, with
    `self_influence` in it.

    Args:
        path: a file of tracin-func, or of the same form.
        column: the name of the scores, such as `tracin_influence`; needed if the file holds scores of several names,
            or of an unknown name.

    Raises:
        InputError: the file cannot be read, or the meaning of its scores is unknown.

    Example:
        >>> path = ti.influence(task).save("influence.parquet")
        >>> ti.load(path)
        Influence(4 training × 3 test pairs; strongest a_b on f_b +0.224)
    """
    return loaded(read_result(Path(path)), column)


def loaded(file: ResultFile, column: str | None = None) -> SelfInfluence | Influence | TopInfluences:
    """The scores of a file that was read; see `load`."""
    if _is_strongest(file):
        return _top_influences(file)
    found = _named(file, column)
    own, cross = ([name for name in found if _is_self(file, found[name]) == kind] for kind in (True, False))
    if len(own) > 1 or len(cross) > 1 or not found:
        names, what = list(found or file.columns), "several names" if found else "unknown meaning"
        if column is not None:
            known = list(_named(file, None)) or names
            raise InputError(f'`column="{column}"` not found in `{file.path}`. Names of its scores: {few(known)}.')
        raise InputError(f"`{file.path}` holds scores of {what}: {few(names)}. Choose one name with `column`.")
    of_self = _self_influence(file, own[0], found[own[0]]) if own else None
    if cross:
        return _influence(file, cross[0], found[cross[0]], of_self)
    assert of_self is not None
    return of_self


def load_each(file: ResultFile) -> list[SelfInfluence | Influence | TopInfluences]:
    """All scores of a file, one result per name of scores; see `load`.

    Raises:
        InputError: the meaning of its scores is unknown.
    """
    if _is_strongest(file):
        return [_top_influences(file)]
    found = _named(file, None)
    if not found:
        raise InputError(
            f"`{file.path}` holds scores of unknown meaning: {few([*file.columns])}. Expected columns such as "
            f"'{SELF_COLUMN}', or the provenance beside the file."
        )
    return [
        _self_influence(file, name, parts) if _is_self(file, parts) else _influence(file, name, parts, None)
        for name, parts in found.items()
    ]


def _is_strongest(file: ResultFile) -> bool:
    return any(start == "side" for start, _, _ in file.parts.values())


def _self_influence(file: ResultFile, column: str, parts: dict[str, Parts]) -> SelfInfluence:
    pairs, values = _read(file, parts)
    values = {name: each[..., 0] for name, each in values.items()}
    if column == SCORE and holds(pairs, "items"):  # of streamed pairs, whose ids in the file are row numbers
        object.__setattr__(pairs, "ids", tuple(f"{first}_{second}" for first, second in pairs.items))
    return held(SelfInfluence, file.path, pairs=pairs, **_fields(file, column, parts, values))


def _influence(
    file: ResultFile, column: str, parts: dict[str, Parts], self_influence: SelfInfluence | None
) -> Influence:
    pairs, values = _read(file, parts)
    test = held(PairRecord, file.path, ids=tuple(map(str, _tests(parts))), swapped={})
    both = {"train": pairs, "test": test, "self_influence": self_influence}
    return held(Influence, file.path, **both, **_fields(file, column, parts, values))


def _top_influences(file: ResultFile) -> TopInfluences:
    """The strongest pairs of each test pair: those with scores above 0, and those below."""
    parts = {name: each for name, each in file.parts.items() if each[0] == SCORE}
    if unfit := [pair for pair in file.pairs if not pair.isdecimal() or pair not in file.items]:
        raise InputError(
            f"`{file.path}`: pair {unfit[0]!r} should be a row number, with the names of both items. {REMEDY}"
        )
    items = dict.fromkeys(item for both in file.items.values() for item in both)
    places = {item: place for place, item in enumerate(items)}
    sides: list[list[Winners]] = [[], []]
    errors: list[list[Tensor]] = [[], []]
    for name in parts:
        scores = numbers(file.columns.get(name, {}))
        for side, sign in enumerate((1, -1)):
            pairs = sorted((pair for pair in scores if sign * scores[pair] > 0), key=lambda pair: -sign * scores[pair])
            both = torch.tensor([[places[item] for item in file.items[pair]] for pair in pairs]).reshape(-1, 2)
            values = torch.tensor([scores[pair] for pair in pairs], dtype=torch.float64)
            rows = torch.tensor([int(pair) for pair in pairs], dtype=torch.int64)
            sides[side].append(held(Winners, file.path, rows=rows, scores=values, first=both[:, 0], second=both[:, 1]))
            errors[side].append(torch.tensor(_numbers(file.errors.get(name, {}), pairs), dtype=torch.float64))
    known = _fields(file, SCORE, parts, {})
    asked = {"pairs": "rows", "inactive": "inactive_share"}
    counts = known["loaded"].provenance.get("pairs", {})
    strongest = {name: counts[key] for name, key in asked.items() if key in counts}
    return TopInfluences(
        held(Strongest, file.path, proponents=tuple(sides[0]), opponents=tuple(sides[1]), **strongest),
        held(PairRecord, file.path, ids=tuple(map(str, _tests(parts)))),
        known["run"],
        list(places),
        {int(pair): name for pair, name in file.names.items()} or None,
        tuple(zip(*errors, strict=True)) if file.errors else None,
        known["loaded"],
    )


def _fields(file: ResultFile, column: str, parts: dict[str, Parts], values: dict[str, Tensor]) -> dict[str, Any]:
    """The common fields: scores, summed and by checkpoint, and how they were computed, as far as recorded."""
    record = file.origin(next(iter(parts))) or {}
    kinds = {"loss": dict, "engine": dict, "source": dict, "checkpoints": list, "notices": list}
    known = {name: record[name] for name, kind in kinds.items() if isinstance(record.get(name), kind)}
    if steps := _steps(parts):
        by_name = {each.get("name"): each for each in known.get("checkpoints", ()) if isinstance(each, dict)}
        known["checkpoints"] = [by_name.get(step, {"name": step}) for step in steps]
    own: dict[str, Any] = {name: values[name] for name in ("per_checkpoint", "variance") if name in values}
    loaded = Loaded(column, values.get("scores"), values.get("standard_error"), record)
    return {**own, "run": held(Run, file.path, **known, method=_method(file, record)), "loaded": loaded}


def _method(file: ResultFile, record: Mapping[str, Any]) -> Method:
    own = {each.name: record[each.name] for each in fields(Method) if each.name in record}
    try:
        return Method(**own | {"projection": Projection(**own["projection"]) if own.get("projection") else NONE})
    except (UsageError, TypeError) as error:
        raise InputError(f"The provenance of `{file.path}` is damaged: {error}") from None


def _read(file: ResultFile, parts: dict[str, Parts]) -> tuple[PairRecord, dict[str, Tensor]]:
    """The pairs with a number in any column, and their scores with a last axis of test pairs."""
    pairs = [pair for pair in file.pairs if any(number(file.columns[name].get(pair)) is not None for name in parts)]
    place = {(test, step): name for name, (_, test, step) in parts.items()}

    def tensor(columns: Mapping[str, Column], steps: Sequence[str | None]) -> Tensor:  # [steps, pairs, tests]
        tests = _tests(parts)
        rows = [[_numbers(columns.get(place.get((test, step), ""), {}), pairs) for test in tests] for step in steps]
        return torch.tensor(rows, dtype=torch.float64).transpose(1, 2)

    steps, estimated = _steps(parts), any(name in file.errors for name in parts)
    values = {}
    if any(step is None for _, _, step in parts.values()):
        values["scores"] = tensor(file.columns, [None])[0]
        if estimated:
            values["standard_error"] = tensor(file.errors, [None])[0]
    if steps:
        values["per_checkpoint"] = tensor(file.columns, steps)
        if estimated:
            values["variance"] = tensor(file.errors, steps) ** 2
    items = items_of_ids(pairs) | file.items
    known = {"items": tuple(items[pair] for pair in pairs)} if all(pair in items for pair in pairs) else {}
    both = {f"{first}_{second}": f"{second}_{first}" for first, second in known.get("items", ())}
    swapped = {pair: both[pair] for pair in pairs if pair in both}
    classes = recorded_classes(file.origin(next(iter(parts))) or {}, known.get("items", ()))
    return held(PairRecord, file.path, ids=tuple(pairs), swapped=swapped, classes=classes, **known), values


def _numbers(column: Column, pairs: Sequence[str]) -> list[float]:
    found = (number(column.get(pair)) for pair in pairs)
    return [math.nan if value is None else value for value in found]


def _tests(parts: Mapping[str, Parts]) -> list[str | None]:
    return list(dict.fromkeys(test for _, test, _ in parts.values()))


def _steps(parts: Mapping[str, Parts]) -> list[str]:
    return list(dict.fromkeys(step for _, _, step in parts.values() if step is not None))


# The meaning of columns by their names


def _named(file: ResultFile, column: str | None) -> dict[str, dict[str, Parts]]:
    """Columns of scores by score name, with test pair and checkpoint of each; only those of `column` if given."""
    found: dict[str, dict[str, Parts]] = {}
    for name in file.columns:
        origin = file.origin(name) or {}
        start = file.parts[name][0] if name in file.parts else _start(origin, name, column)
        known = column is not None or origin.get("score") in SCORES or meaning_of(str(start)) is not None
        if start is not None and known and column in (None, start):
            rest = name.removeprefix(start).removeprefix("_") or None
            found.setdefault(start, {})[name] = file.parts.get(name, (start, rest, None))
    for start, parts in found.items():
        if not file.parts and _is_self(file, parts):
            found[start] = {name: (start, None, rest) for name, (_, rest, _) in parts.items()}
        elif not file.parts:
            found[start] = _apart(parts, _checkpoints(file.origin(next(iter(parts))) or {}))
    return found


def _start(origin: Mapping[str, Any], name: str, column: str | None) -> str | None:
    """The name of the scores, with which the name of a column begins; None if unknown."""
    if column is not None:
        return column if name == column or name.startswith(f"{column}_") else None
    found = start_of(name, origin)
    if found is None and origin.get("score") == "self":
        ends = [f"_{each}" for each in _checkpoints(origin) if name.endswith(f"_{each}")]
        return name.removesuffix(max(ends, key=len, default=""))
    return found


def _is_self(file: ResultFile, parts: Mapping[str, Parts]) -> bool:
    """Whether columns are self-influence: by provenance, else by name, else by the lack of a test pair."""
    name, (start, test, _) = next(iter(parts.items()))
    score = (file.origin(name) or {}).get("score")
    meaning = meaning_of(start)
    if score in SCORES:
        return bool(score == "self")
    return test is None if meaning is None else meaning == "self"


def _apart(parts: dict[str, Parts], checkpoints: Sequence[str]) -> dict[str, Parts]:
    """Columns split into test pair and checkpoint, if all end with a checkpoint and each test pair has all of them.

    Not if that cuts ids of pairs in two: `0_2` is a pair, and 2 may be a checkpoint.
    """
    split: dict[str, Parts] = {}
    for name, (start, rest, _) in parts.items():
        ends = [each for each in checkpoints if str(rest).endswith(f"_{each}")]
        if not ends:
            return parts
        step = max(ends, key=len)
        split[name] = start, str(rest).removesuffix(f"_{step}"), step
    tests = list(map(str, _tests(split)))
    whole = [str(rest) for _, rest, _ in parts.values()]
    cut = len(items_of_ids(whole)) == len(whole) and len(items_of_ids(tests)) < len(tests)
    return parts if cut or len(split) != len(tests) * len(checkpoints) else split


def _checkpoints(origin: Mapping[str, Any]) -> list[str]:
    found = origin.get("checkpoints")
    return [str(each.get("name")) for each in found if isinstance(each, dict)] if isinstance(found, list) else []
