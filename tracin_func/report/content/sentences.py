"""An analysis in sentences of a language: findings, warnings, advice, commands and facts, for every form of report."""

import shlex
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from tracin_func.report.content.analysis import Analysis, Oddity
from tracin_func.report.content.charts import figure
from tracin_func.report.languages.registry import Say
from tracin_func.results.views import CONSTANT_RUNS, NOT_NUMBERS, REPEATED_VALUES, ZERO_COLUMN
from tracin_func.sources.options import flag

_DATA = ("data_root", "checkpoint_dir", "material", "frequency", "task", "model", "pairs", "seed")  # of a run again
_THRESHOLD = -5
MARK = "tracin-func report"  # in every report, by which an older one is known


class Command(NamedTuple):
    """A command and what it is for."""

    why: str
    line: str


class Warned(NamedTuple):
    """A warning about columns: what, where, and what it means."""

    kind: str
    where: str
    what: str
    reason: str


def percent(share: float) -> str:
    """A share with one digit, none where it has none."""
    text = f"{100 * share:.1f}"
    return f"{text.removesuffix('.0')}%"


def findings(analysis: Analysis, say: Say) -> list[str]:
    """What a reader should know first."""
    found = []
    odd = {each.column for each in analysis.oddities}
    if odd:
        found.append(say("found_odd", count=len(odd)))
    own = analysis.own
    if own is not None and own.hardest:
        hardest, mean = own.hardest[0], own.distribution.statistics.mean
        times = figure(hardest.score / mean) if mean else "0"
        found.append(say("found_hardest", pair=hardest.pair, score=figure(hardest.score), times=times))
        if own.class_pairs:
            top = own.class_pairs[0]
            found.append(say("found_classes", name=top.name, mean=figure(top.mean), pairs=f"{top.pairs:,}"))
        if half := _half(analysis):
            pairs = own.distribution.statistics.count
            found.append(say("found_half", count=f"{half:,}", pairs=f"{pairs:,}"))
    if zero := sum(test.zero for test in analysis.tests):
        found.append(say("found_zero", count=zero, tests=len(analysis.tests)))
    strongest = [(test.proponents[0].score, test) for test in analysis.tests if test.proponents]
    if strongest:
        _, test = max(strongest, key=lambda each: each[0])
        row = test.proponents[0]
        found.append(say("found_test", test=test.name, pair=row.pair, score=f"+{figure(row.score)}"))
    return found


def _half(analysis: Analysis) -> int:
    """The number of the hardest pairs that have half of all self-influence; 0 where it is 0."""
    assert analysis.evidence.own is not None
    ordered = sorted(analysis.evidence.own.values.values(), reverse=True)
    total = sum(ordered)
    return 1 + sum(each < total / 2 for each in accumulate(ordered)) if total > 0 else 0


def warnings(analysis: Analysis, say: Say) -> Iterator[Warned]:
    """One warning per kind of oddity; of several columns the worst is described."""
    for kind in (ZERO_COLUMN, CONSTANT_RUNS, REPEATED_VALUES, NOT_NUMBERS):
        found = [each for each in analysis.oddities if each.flag.kind == kind]
        if not found:
            continue
        worst = max(found, key=lambda each: each.flag.pairs)
        where = worst.column if len(found) == 1 else f"{worst.column} · {say('odd_more', count=len(found) - 1)}"
        yield Warned(kind, where, _about(worst, say), _reason(worst, say))


def _about(odd: Oddity, say: Say) -> str:
    found = odd.flag
    value = figure(found.value) if isinstance(found.value, float) else repr(found.value)
    return say(f"odd_{found.kind}", pairs=found.pairs, groups=found.groups, most=found.most, value=value)


def _reason(odd: Oddity, say: Say) -> str:
    if odd.flag.kind not in (CONSTANT_RUNS, REPEATED_VALUES):
        return ""
    return say("odd_alike" if odd.ours else "odd_averages")


def advised(analysis: Analysis, say: Say) -> list[str]:
    """What to record, weight or check next."""
    return [
        say(
            f"advice_{each.kind}",
            name=each.group.name,
            pairs=f"{each.group.pairs:,}",
            usual=figure(each.usual),
            mean=figure(each.group.mean),
            times=figure(each.group.mean / each.overall) if each.overall else "0",
            wrong=percent(each.group.wrong or 0.0),
        )
        for each in analysis.advice
    ] or [say("advice_none")]


def commands(analysis: Analysis, say: Say, *, with_media: bool) -> list[Command]:
    """What to run next, as it can be pasted."""
    evidence = analysis.evidence
    again = _data(evidence.record.get("options"))
    found = []
    if evidence.own is not None:
        found.append(Command(say("command_items"), f"tracin-func show {_quoted(evidence.own.path)} --by item"))
    else:
        found.append(Command(say("command_self"), f"tracin-func self{again}"))
    if any(not test.zero for test in analysis.tests):
        path = next(column.path for column in evidence.tests)
        line = f"tracin-func exclude {_quoted(path)} --threshold {_THRESHOLD}"
        found.append(Command(say("command_exclude"), line))
    elif not analysis.tests:
        found.append(Command(say("command_influence"), f"tracin-func influence{again} --num-test 5"))
    if any(test.zero for test in analysis.tests):
        line = f"tracin-func influence{again} --test-functional score-margin"
        found.append(Command(say("command_margin"), line))
    loss = evidence.record.get("loss")
    if isinstance(loss, dict) and loss.get("loss_type") == "ghm":
        line = f"tracin-func self{again} --loss-type standard --metadata-dir metadata-standard"
        found.append(Command(say("command_standard"), line))
    if not with_media and analysis.classes and all(name.startswith("deg") for name in analysis.classes):
        files = " ".join(map(_quoted, evidence.files))
        found.append(Command(say("command_sound"), f"tracin-func report {files} --data-root recordings"))
    if evidence.files:
        line = f"tracin-func compare {_quoted(evidence.files[0])} NEW"
        found.append(Command(say("command_compare"), line))
    return found


def _data(options: Any) -> str:
    """The options of a run that choose its data, for another run on the same."""
    given = options if isinstance(options, dict) else {}
    return "".join(f" {flag(name)} {shlex.quote(str(given[name]))}" for name in _DATA if given.get(name) is not None)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def facts(analysis: Analysis, say: Say) -> list[tuple[str, str]]:
    """How the scores came about, by heading."""
    evidence = analysis.evidence
    record, origin = evidence.record, evidence.origin
    found = [(say("files"), ", ".join(map(str, evidence.files)))]
    if isinstance(command := record.get("command"), list):
        found.append((say("command"), shlex.join(map(str, command))))
    for key, value in (
        ("working_folder", record.get("working_folder")),
        ("model", origin.get("model")),
        ("data", origin.get("data_root") or origin.get("task")),
        ("loss_used", _listed(record.get("loss"))),
        ("sign", record.get("sign")),
        ("unit", record.get("unit")),
        ("engine", _engine(record.get("engine"))),
        ("versions", _listed(record.get("versions"))),
        ("notices", "; ".join(_notices(record, origin))),
    ):
        if value:
            found.append((say(key), str(value)))
    if isinstance(projection := record.get("projection"), dict) and projection.get("kind", "none") != "none":
        found.append((say("projection"), _listed(projection)))
    runs = {(str(each.get("command")), str(each.get("loss"))) for each in evidence.records}
    if len(runs) > 1:
        found.append((say("others"), say("others_about", count=len(runs) - 1)))
    return found


def _notices(record: Mapping[str, Any], origin: Mapping[str, Any]) -> list[str]:
    found = [record.get("notices"), origin.get("notices")]
    return list(dict.fromkeys(str(each) for one in found if isinstance(one, list) for each in one))


def _engine(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    return ", ".join(str(value[name]) for name in ("engine", "device") if value.get(name))


def _listed(value: Any) -> str:
    return ", ".join(f"{name} {each}" for name, each in value.items()) if isinstance(value, dict) else ""
