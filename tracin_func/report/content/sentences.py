"""An analysis in sentences of a language: findings, warnings, advice, commands and facts, for every form of report."""

import shlex
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from tracin_func.report.content.analysis import Analysis, Oddity, OwnAnalysis, TestAnalysis
from tracin_func.report.content.candidates import candidates
from tracin_func.report.content.charts import figure
from tracin_func.report.languages.registry import Say
from tracin_func.results.views import CONSTANT_RUNS, NOT_NUMBERS, REPEATED_VALUES, ZERO_COLUMN
from tracin_func.sources.options import flag

_DATA = ("data_root", "checkpoint_dir", "material", "frequency", "task", "model", "pairs", "seed")  # of a run again
_FINDINGS = 3
_NAME = "\x1f"  # around an id in a sentence
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


def named(name: str) -> str:
    """An id in a sentence, marked so that each form of report can set it apart."""
    return f"{_NAME}{name}{_NAME}"


def parts_of(sentence: str) -> list[tuple[str, bool]]:
    """A sentence in parts, and whether each is an id."""
    return [(part, place % 2 == 1) for place, part in enumerate(sentence.split(_NAME)) if part]


def lead(analysis: Analysis, say: Say) -> str:
    """What was analysed, in a sentence or two."""
    evidence = analysis.evidence
    count, tests = f"{len(evidence.pairs):,}", len(analysis.tests)
    kind = "both" if evidence.own and tests else "own" if evidence.own else "tests"
    found = [say(f"lead_{kind}", pairs=count, items=f"{analysis.items:,}", tests=f"{tests:,}")]
    loss = evidence.record.get("loss")
    if analysis.checkpoints and isinstance(loss, dict):
        of_loss = loss.get("loss_type", loss.get("loss"))
        model = str(evidence.origin.get("model") or say("lead_model"))
        words = {
            "count": len(analysis.checkpoints),
            "model": model,
            "loss": "GHM" if of_loss == "ghm" else of_loss,
        }
        found.append(say("lead_run" if words["loss"] else "lead_checkpoints", **words))
    return say("between").join(found)


def findings(analysis: Analysis, say: Say) -> list[str]:
    """The three things that a reader should know first."""
    own, tests = analysis.own, [test for test in analysis.tests if not test.zero]
    found = list(_of_own(analysis, own, say)) if own is not None and own.hardest else []
    found += _of_tests(analysis, tests, say)
    if own is None and analysis.advice:
        found += advised(analysis, say)[:1]
    return found[:_FINDINGS]


def _of_own(analysis: Analysis, own: OwnAnalysis, say: Say) -> Iterator[str]:
    hardest, statistics = own.hardest[0], own.distribution.statistics
    tied = sum(each == hardest.score for each in analysis.evidence.own.values.values()) if analysis.evidence.own else 1
    times = figure(hardest.score / statistics.mean) if statistics.mean else "0"
    key, both = "found_hardest" if tied == 1 else "found_tied", _both(hardest.pair, hardest.items, say)
    sentence = say(key, pair=both, score=figure(hardest.score), times=times, tied=tied)
    if 1 < (half := _half(analysis)) < statistics.count / 3:
        sentence += say("between") + say("found_half", count=f"{half:,}", pairs=f"{statistics.count:,}")
    yield sentence
    if own.class_pairs:
        top = own.class_pairs[0]
        words = {"name": named(top.name), "mean": figure(top.mean), "pairs": f"{top.pairs:,}"}
        sentence = say("found_classes", **words)
        if top.wrong:
            sentence += say("between") + say("found_wrong", wrong=round(top.wrong * top.pairs), pairs=f"{top.pairs:,}")
        yield sentence


def _of_tests(analysis: Analysis, tests: list[TestAnalysis], say: Say) -> Iterator[str]:
    """The strongest proponent of all, and without self-influence the strongest opponent."""
    sides = [("helped", 1, [(test.proponents[0], test) for test in tests if test.proponents])]
    if analysis.own is None:
        sides.append(("harmed", -1, [(test.opponents[0], test) for test in tests if test.opponents]))
    for kind, sign, rows in sides:
        if rows:
            row, test = max(rows, key=lambda each: sign * each[0].score)
            score = f"{'+' if sign > 0 else ''}{figure(row.score)}"
            words = {"test": _both(test.name, test.items, say), "pair": _both(row.pair, row.items, say)}
            yield say(f"found_{kind}", **words, score=score)


def _both(pair: str, items: tuple[str, str] | None, say: Say) -> str:
    """The two items of a pair, which are easier to read than its id."""
    return named(pair) if items is None else say("found_pair", first=named(items[0]), second=named(items[1]))


def cautions(analysis: Analysis, say: Say) -> list[str]:
    """What limits everything on the page."""
    found = []
    if odd := {each.column for each in analysis.oddities}:
        found.append(say("found_odd", count=len(odd)))
    if zero := sum(test.zero for test in analysis.tests):
        found.append(say("found_zero", count=zero, tests=len(analysis.tests)))
    if analysis.evidence.strongest:
        found.append(say("kept_only"))
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


def averaged(analysis: Analysis) -> bool:
    """Whether scores are averages over batches, which says little about single pairs."""
    kinds = (CONSTANT_RUNS, REPEATED_VALUES)
    return any(not each.ours and each.flag.kind in kinds for each in analysis.oddities)


def advised(analysis: Analysis, say: Say) -> list[str]:
    """What to record, weight or check next."""
    return [
        say(
            f"advice_{each.kind}",
            name=named(each.group.name),
            pairs=f"{each.group.pairs:,}",
            usual=f"{each.usual:,.0f}",
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
    for each in candidates(evidence):
        words = {"count": f"{each.listed:,}", "pairs": f"{each.pairs:,}", "value": each.value.replace("-", "−")}
        found.append(Command(say(f"command_{each.kind}", **words), each.line))
    if not analysis.tests:
        found.append(Command(say("command_influence"), f"tracin-func influence{again} --num-test 5"))
    if any(test.zero for test in analysis.tests):
        line = f"tracin-func influence{again} --test-functional score-margin"
        found.append(Command(say("command_margin"), line))
    loss = evidence.record.get("loss")
    if isinstance(loss, dict) and loss.get("loss_type") == "ghm":
        line = f"tracin-func self{again} --loss-type standard --metadata-dir metadata-standard"
        found.append(Command(say("command_standard"), line))
    files = " ".join(map(_quoted, evidence.files))
    if not with_media and analysis.classes and all(name.startswith("deg") for name in analysis.classes):
        found.append(Command(say("command_sound"), f"tracin-func report {files} --data-root recordings"))
    if evidence.files:
        found.append(Command(say("command_compare"), f"tracin-func report {files} --compare NEW.json"))
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
    every = (str(each) for one in found if isinstance(one, list) for each in one)
    return list(dict.fromkeys(each.removeprefix("note: ").removesuffix(".") for each in every))


def _engine(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    return ", ".join(str(value[name]) for name in ("engine", "device") if value.get(name))


def _listed(value: Any) -> str:
    return ", ".join(f"{name} {each}" for name, each in value.items()) if isinstance(value, dict) else ""
