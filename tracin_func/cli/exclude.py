"""`tracin-func exclude FILE...`: pairs to leave out or to flip, by their scores in result files."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracin_func.cli.errors import interruption, printing
from tracin_func.cli.exclusion_options import ExcludeOptions
from tracin_func.cli.options import ViewOptions
from tracin_func.errors import InputError, UsageError
from tracin_func.files import real_path
from tracin_func.report.terminal.exclusions import Count, document, print_counts, print_exclusions
from tracin_func.report.terminal.origin import print_file
from tracin_func.report.terminal.tables import open_console
from tracin_func.results.exclusion_rule import FULL_PAIR, RANKING_PAIR, Rule
from tracin_func.results.exclusions import Exclusions, choose, counts
from tracin_func.results.files.marks import mark_excluded
from tracin_func.results.files.origins import provenance_path
from tracin_func.results.files.read import ResultFile, read_result
from tracin_func.results.files.registry import FORMATS
from tracin_func.results.files.scores_json import JSON
from tracin_func.results.files.table import SCORE_MARGIN
from tracin_func.results.flips import suggested_flips
from tracin_func.results.influence import Influence, SelfInfluence
from tracin_func.results.load import loaded
from tracin_func.results.score_table import ScoreTable, joined
from tracin_func.results.scored import score_table
from tracin_func.results.views import items_named, items_of_ids, numbers
from tracin_func.sources.options import Options
from tracin_func.sources.registry import classes_of_ids
from tracin_func.sources.values import words

TOP = 10
OCCURRENCES = (1, 2, 3)  # for which pairs are counted
SWEEPS = {False: ("-5", "-10", "-15", "1%", "5%"), True: ("90%", "95%", "99%")}  # by whether it is self-influence
_WITHOUT_LIST = "task"  # the kind of source that takes no list of ids

Result = SelfInfluence | Influence


def exclude(options: Options) -> None:
    """List pairs to exclude or to flip; write the list and mark the files if asked to."""
    own, view = options[ExcludeOptions], options[ViewOptions]
    _require_apart(own)
    files = [read_result(path) for path in own.file]
    results = [_result(file, own.column) for file in files]
    tables = [_table(file, each) for file, each in zip(files, results, strict=True)]
    table = joined(tables)
    if own.sweep is not None:
        found = _counts(table, words("sweep", own.sweep) or [], _rule(own))
        with printing():
            if view.json:
                _print_json(document(table, found, None))
            else:
                _print_origins(files if view.verbose else ())
                print_counts(table, found, own.mode or RANKING_PAIR)
                print(f"\nNext     {_of_sweep(own, table, found)}")
        return
    rule = _rule(own)
    chosen = choose(rule, table) if own.suggest is None else suggested_flips(table, rule)
    found = [] if own.suggest else _counts(table, _sweep(table, rule), rule, beside=True)
    written = _write(own, tables, chosen)
    with printing():
        if view.json:
            _print_json(document(table, found, chosen) | written)
            return
        _print_origins(files if view.verbose else ())
        print_exclusions(table, found, chosen, rule, top=own.top or TOP)
        print()
        if "written" in written:
            print(f"Written  {own.output_file}")
        for path in written.get("marked", ()):
            print(f"Marked   {path}")
        if following := _next(own, results, chosen):
            print(f"Next     {following}")


def _result(file: ResultFile, column: str | None) -> Result:
    found = loaded(file, column)
    if not isinstance(found, Result):
        raise InputError(
            f"`{file.path}` holds the strongest pairs of each test pair only, so that no threshold can be applied to "
            "all. Score without `keep`."
        )
    return found


def _table(file: ResultFile, result: Result) -> ScoreTable:
    """The scores of a file, with the classes in its ids and its score margins."""
    classes = classes_of_ids(sorted(items_named(items_of_ids(result.ids))))
    return score_table(result, f"`{file.path}`", classes or None, numbers(file.facts.get(SCORE_MARGIN, {})))


def _rule(own: ExcludeOptions) -> Rule:
    return Rule(
        threshold=own.threshold,
        upper_threshold=own.upper_threshold,
        drop=own.drop,
        max_exclusions=own.max_exclusions,
        min_occurrences=own.min_occurrences or 1,
        mode=own.mode or RANKING_PAIR,
        with_mirrors=own.with_mirrors,
    )


def _sweep(table: ScoreTable, rule: Rule) -> list[str]:
    """The thresholds to count beside the rule."""
    usual = SWEEPS[table.of_self]
    own = str(rule.upper_threshold if table.of_self else rule.threshold)
    return [each for each in usual if own not in (each, f"{each}.0")]


def _counts(table: ScoreTable, thresholds: Sequence[str], rule: Rule, *, beside: bool = False) -> list[Count]:
    """How many pairs or items each threshold chooses; `beside` a rule of thresholds, first those of the rule."""
    sides = [(None, each) if table.of_self else (each, None) for each in thresholds]
    rules = [Rule(lower, upper, mode=rule.mode) for lower, upper in sides]
    if beside and rule.drop is None and (rule.threshold, rule.upper_threshold) != (None, None):
        rules.insert(0, rule)
    least = [1] if table.of_self else sorted({*OCCURRENCES, rule.min_occurrences})
    found = [dict(zip(least, counts(table, each, least), strict=True)) for each in rules]
    return [
        Count(*each.limits(table), each.threshold, each.upper_threshold, chosen)
        for each, chosen in zip(rules, found, strict=True)
    ]


# Files


def _require_apart(own: ExcludeOptions) -> None:
    """Refuse to replace a file that is read, and to mark a file that is not JSON."""
    read = {real_path(path) for path in own.file}
    if own.output_file is not None and real_path(own.output_file) in read | {
        provenance_path(path) for path in own.file
    }:
        raise UsageError(f"`output_file` is one of the result files: {own.output_file}. Name another file.")
    for path in own.file if own.update_metadata else ():
        if FORMATS.get(path.suffix.removeprefix(".").lower(), JSON) is not JSON:
            raise UsageError(f"`update_metadata` marks JSON files only. Got {path}. Use `output_file` instead.")


def _write(own: ExcludeOptions, tables: Sequence[ScoreTable], chosen: Exclusions) -> dict[str, Any]:
    """Write the list and the marks; returns the paths."""
    written: dict[str, Any] = {}
    with interruption("each file is as it was or holds the new list"):
        if own.output_file is not None:
            written["written"] = str(chosen.save(own.output_file, format=own.format))
        if own.update_metadata:
            kept = dict(zip(chosen.pairs, chosen.kept.tolist(), strict=True))
            facts = [(path, _facts(table, chosen, kept)) for path, table in zip(own.file, tables, strict=True)]
            written["marked"] = list(map(str, mark_excluded(facts)))
    return written


def _facts(table: ScoreTable, chosen: Exclusions, kept: Mapping[str, bool]) -> dict[str, dict[str, Any]]:
    """Facts by id of each excluded pair of a file: those of its own row, or of its first listed item."""
    rows = {row.id: row for row in chosen.rows}
    found = {}
    for pair in (pair for pair in table.ids if not kept[pair]):
        names = [pair, *table.items.get(pair, ())]
        row = next(rows[name] for name in names if name in rows)
        facts = row._asdict() | {"lower": chosen.lower, "upper": chosen.upper}
        if row.id != pair:
            facts["reason"] = f"item {row.id} is excluded: {row.reason}"
        found[pair] = {name: value for name, value in facts.items() if name != "id" and value is not None}
    return found


# What is printed


def _print_origins(files: Sequence[ResultFile]) -> None:
    """Where the scores come from."""
    for each in files:
        print_file(open_console(), each, list(each.columns), verbose=True)
        print()


def _next(own: ExcludeOptions, results: Sequence[Result], chosen: Exclusions) -> str | None:
    """The command that follows: one that works as it is, where the files record enough."""
    if own.suggest is not None:
        return None
    if not len(chosen):
        of_default = (own.threshold, own.upper_threshold, own.drop) == (None, None, None)
        return f"{_command(own)} --threshold 1%" if of_default and isinstance(results[0], Influence) else None
    if own.output_file is None:
        return f"{_command(own)} --output-file exclusions.txt"
    if own.format == "parquet" or own.format == "mask" or own.output_file.suffix.lower() in (".parquet", ".npy"):
        return None
    record, path = results[0].provenance, own.file[0]
    source = record.get("source")
    if isinstance(source, dict) and source.get("kind") == _WITHOUT_LIST:
        return None
    score = "self" if isinstance(results[0], SelfInfluence) else "influence"
    given = f"--exclusions-file {_quoted(own.output_file)} --metadata-dir {_quoted(path.parent / 'without')}"
    if record.get("options") is None:
        return f"tracin-func {score} --data-root DIR --checkpoint-dir DIR {given}"
    return f"tracin-func {score} --from {_quoted(f'{path}.provenance.json')} {given}"


def _of_sweep(own: ExcludeOptions, table: ScoreTable, found: Sequence[Count]) -> str:
    """The command for the first threshold of a sweep that lists something and leaves something."""
    least = 1 if table.of_self else own.min_occurrences or 1
    total = len(table.item_ids if own.mode == FULL_PAIR else table.ids)
    first = next((each for each in found if 0 < each.chosen[least] < total), found[0])
    name, value = ("upper-threshold", first.upper_threshold) if table.of_self else ("threshold", first.threshold)
    shown = f"{value:g}" if isinstance(value, float) else value
    return f"{_command(own)} --{name} {shown} --output-file exclusions.txt"


def _command(own: ExcludeOptions) -> str:
    """This command without what it only counted or wrote."""
    given = [shlex.quote(str(path)) for path in own.file]
    for name in ("column", "threshold", "upper_threshold", "drop", "min_occurrences", "max_exclusions", "mode"):
        if (value := getattr(own, name)) is not None:
            given += [f"--{name.replace('_', '-')}", shlex.quote(str(value))]
    return " ".join(["tracin-func exclude", *given, *(["--with-mirrors"] if own.with_mirrors else [])])


def _quoted(path: Path | str) -> str:
    return shlex.quote(str(path))


def _print_json(found: Mapping[str, Any]) -> None:
    print(json.dumps(found, ensure_ascii=False, indent=2, allow_nan=False))
