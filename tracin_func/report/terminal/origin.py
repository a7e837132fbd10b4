"""What is printed before the scores of a result file: where they come from, and what is odd about them."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from tracin_func.report.terminal.tables import print_facts, print_line, print_words
from tracin_func.results.files.read import ResultFile, other_origins
from tracin_func.results.names import FEW, STARTS, counted, few
from tracin_func.results.views import CONSTANT_RUNS, NOT_NUMBERS, REPEATED_VALUES, RUN, ZERO_COLUMN, Flag

_AVERAGES = "Identical scores result from averages over a batch: they are not scores of single pairs."
_ALIKE = "Scores are equal where gradients are: for copies of an item, or for a scorer with few parameters."
_NO_ORIGIN = "no provenance: written by another program"
_BRIEF = ("source", "origin", "loss", "besides", "others", "unknown")


def print_file(console: Console, result: ResultFile, columns: Sequence[str], *, verbose: bool) -> None:
    """The file and where `columns` come from, in two lines; with `verbose` all that is known of it."""
    held = f"{counted(len(result.pairs), 'pair')}, {counted(len(result.columns), 'column')}"
    print_line(console, f"{result.path}: {held} ({result.format})")
    facts = origin_of(result, columns)
    if verbose:
        if result.others:
            facts["not scores"] = few(result.others)
        print_facts(console, facts)
        return
    facts["loss"] = ", ".join(facts.get("loss", "").split(", ")[:2])  # the kind and its first setting
    brief = [facts[name] for name in _BRIEF if facts.get(name)]
    if "checkpoints" in facts:
        brief.append(f"{facts['checkpoints'].partition(':')[0]} checkpoints")
    if brief:
        print_words(console, f"{'; '.join(brief)} (details: --verbose)")


def origin_of(result: ResultFile, columns: Sequence[str]) -> dict[str, str]:
    """Where columns come from, in words by what they are about; where they differ, the first and how many differ."""
    if result.fault:
        return {"origin": f"the provenance cannot be read: {result.fault}"}
    origins = [result.origin(name) for name in columns]
    first = next((origin for origin in origins if origin), None)
    if first is None:
        return {"origin": _NO_ORIGIN}
    facts = _words_of(first)
    if older := other_origins(first):
        facts["besides"] = f"some scores come from {counted(older, 'earlier run')}"
    unknown, different = origins.count(None), sum(origin not in (first, None) for origin in origins)
    if different:
        facts["others"] = f"{counted(different, 'column')} of another origin: --column shows which"
    if unknown:
        facts["unknown"] = f"{counted(unknown, 'column')} with {_NO_ORIGIN}"
    return facts


def print_flags(console: Console, flags: Mapping[str, Sequence[Flag]], ours: bool) -> None:
    """A line for each kind of flag; of several columns with it the worst is described.

    Args:
        flags: by column, also of columns that have none.
        ours: whether the scores were computed by tracin-func, which scores each pair by itself.
    """
    kinds = dict.fromkeys(flag.kind for found in flags.values() for flag in found)
    for kind in kinds:
        with_it = {column: flag for column, found in flags.items() for flag in found if flag.kind == kind}
        worst = sorted(with_it, key=lambda column: with_it[column].pairs, reverse=True)
        where = "" if len(flags) == 1 else f"{len(with_it)} of {len(flags)} columns. "
        sentence = f"{kind}: {where}{_sentence(kind, with_it[worst[0]])}"
        text = Text(f"! {sentence}")
        text.stylize("bold yellow", 0, len(kind) + 2)
        console.print(text)
        if where:
            for name in [*map(short, worst[:FEW]), *([f"and {len(worst) - FEW} more"] if len(worst) > FEW else [])]:
                print_words(console, name, indent=4)
    if {CONSTANT_RUNS, REPEATED_VALUES} & set(kinds):
        print_words(console, _ALIKE if ours else _AVERAGES, indent=2)


def short(column: str) -> str:
    """A column without how all columns of its kind begin: its test pair, or its checkpoint."""
    start = next((name for name in STARTS if column.startswith(name)), "")
    return column.removeprefix(start) or column


def _sentence(kind: str, flag: Flag) -> str:
    """What a flag says, and what follows from it."""
    if kind == ZERO_COLUMN:
        return (
            f"All {flag.pairs} scores are 0. A hinge whose margin is satisfied has gradient 0: was the margin the "
            "models were trained with given? --test-functional score-margin does not saturate."
        )
    if kind == NOT_NUMBERS:
        return f"{counted(flag.pairs, 'value')} left out, such as {flag.value!r} of {flag.pair}."
    if kind == CONSTANT_RUNS:
        return (
            f"{flag.pairs} pairs are in {counted(flag.groups, 'run')} of {RUN} or more consecutive identical scores, "
            f"such as {flag.value:.6g}, {flag.most} times from {flag.pair} on."
        )
    if flag.groups == 1:
        return f"{flag.pairs} pairs share the score {flag.value:.6g} to the last digit."
    return (
        f"{flag.pairs} pairs share {counted(flag.groups, 'score')} to the last digit, such as {flag.value:.6g}, "
        f"{flag.most} times."
    )


def _words_of(origin: Mapping[str, Any]) -> dict[str, str]:
    """A record of provenance in words; what it lacks is left out."""
    facts = {}
    if isinstance(command := origin.get("command"), list):
        facts["command"] = shlex.join(map(str, command))
    if folder := origin.get("working_folder"):
        facts["in"] = str(folder)
    source = origin.get("source")
    if isinstance(source, dict) and source.get("kind") == "embedded":
        facts["source"] = "embedded example"
    if isinstance(loss := origin.get("loss"), dict):
        facts["loss"] = ", ".join([str(loss.get("loss_type", "")), *_settings(loss)]).strip(", ")
    if isinstance(checkpoints := origin.get("checkpoints"), list):
        facts["checkpoints"] = _checkpoints([each for each in checkpoints if isinstance(each, dict)])
    return facts | {name: str(origin[name]) for name in ("sign", "unit") if origin.get(name)}


def _settings(loss: Mapping[str, Any]) -> list[str]:
    return [f"{name} {value}" for name, value in loss.items() if name != "loss_type"]


def _checkpoints(checkpoints: Sequence[Mapping[str, Any]]) -> str:
    names = [str(each.get("name")) for each in checkpoints]
    listed = names if len(names) <= 2 * FEW else [*names[:FEW], "…", names[-1]]
    rates = list(dict.fromkeys(str(each.get("learning_rate")) for each in checkpoints))
    rate = rates[0] if len(rates) == 1 else f"{rates[0]} … {rates[-1]}" if rates else "unknown"
    return f"{len(names)}: {', '.join(listed)}; learning rate {rate}"
