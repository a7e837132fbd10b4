"""The report as Markdown: the same sentences, numbers and charts, with its pictures as files."""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version

from tracin_func.report.content import pictures
from tracin_func.report.content.analysis import (
    ITEM_ROWS,
    TEST_SECTIONS,
    Analysis,
    OwnAnalysis,
    PairRow,
    TestAnalysis,
)
from tracin_func.report.content.charts import figure, standalone
from tracin_func.report.content.comparing import Compared
from tracin_func.report.content.sentences import (
    MARK,
    advised,
    averaged,
    cautions,
    commands,
    facts,
    findings,
    lead,
    parts_of,
    percent,
    warnings,
)
from tracin_func.report.content.spread import Spread
from tracin_func.report.languages.registry import Say, sayer
from tracin_func.results.views import Statistics
from tracin_func.task.item_view import ItemView

_SIGNS = re.compile(r"([\\`*_\[\]<>|&#~])")
_FACTS = ("loss_rank", "loss", "score_margin", "standard_error", "left_out_margin", "active_share", "count")
_WHOLE = ("loss_rank", "count")
_ENDINGS = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif"}


def document(
    analysis: Analysis,
    lang: str,
    views: Mapping[str, ItemView],
    title: str,
    folder: str,
    compared: Compared | None = None,
) -> tuple[str, dict[str, bytes]]:
    """The text of the file, and the content of each picture in `folder` by its name.

    Args:
        analysis: the numbers.
        lang: a language of the registry.
        views: what is shown of items, by id; their sound is left out.
        title: what the scores are of.
        folder: name of the folder of pictures beside the file.
        compared: the scores beside those of another file.
    """
    written = _Written(sayer(lang), folder, views)
    say = written.say
    parts = [
        f"<!-- {MARK} -->",
        f"# {say('title')}: {plain(title)}",
        say("alone", folder=code(folder)),
        f"## {say('summary')}",
        plain(lead(analysis, say)),
        _listed(cautions(analysis, say)),
        _listed(findings(analysis, say), "1. "),
        *_warned(analysis, say),
        f"## {say('self')}",
        *(written.own(analysis.own) if analysis.own else [say("no_self")]),
        f"## {say('tests')}",
        *([written.tests(analysis)] if analysis.tests else [say("no_tests")]),
        *_compared(compared, say),
        f"## {say('rolled')}",
        say(f"rolled_about_{analysis.rolled}"),
        *_groups(analysis.by_class, say("class"), say),
        *_groups(analysis.by_item[:ITEM_ROWS], say("item"), say),
        f"## {say('advice')}",
        say("averages_about") if averaged(analysis) and analysis.advice else "",
        _listed(advised(analysis, say)),
        *(f"{each.why}\n\n```sh\n{each.line}\n```" for each in commands(analysis, say, with_media=bool(views))),
        f"## {say('origin')}",
        *([] if analysis.evidence.records else [say("no_origin")]),
        *written.accuracy(analysis),
        _table(("", ""), [(plain(name), plain(value)) for name, value in facts(analysis, say)]),
        f"## {say('guide')}",
        _listed([say(f"guide_{name}") for name in ("self", "influence", "zero", "order", "loss", "exclude")]),
        say("made", version=version("tracin-func")),
    ]
    return "\n\n".join(filter(None, parts)) + "\n", written.pictures


def plain(text: str) -> str:
    """A text whose signs mean nothing in Markdown or HTML."""
    return _SIGNS.sub(r"\\\1", text).replace("\n", " ")


def code(name: str) -> str:
    """An id as it is, in a fixed-width font where its signs allow that."""
    return plain(name) if set(name) & set("`|\n") or not name.strip() else f"`{name}`"


class _Written:
    """The parts of a document, and the pictures that they need.

    Args:
        say: the sentences of a language.
        folder: of the pictures.
        views: of items, by id.
    """

    def __init__(self, say: Say, folder: str, views: Mapping[str, ItemView]) -> None:
        self.say = say
        self.pictures: dict[str, bytes] = {}
        self._folder = folder
        self._views = views
        self._places = {item: place for place, item in enumerate(views, start=1)}

    def own(self, own: OwnAnalysis) -> Iterator[str]:
        say, charts = self.say, pictures.of_self(own, self.say)
        yield say("self_about")
        yield f"### {say('hardest')}"
        yield f"{say('hardest_about')} {say('target_about') if 'target' in own.hardest[0].facts else ''}".rstrip()
        yield self._pairs(own.hardest)
        if any(view.axes for view in self._views.values()):
            yield say("media_about")
        for name, chart in charts.items():
            yield f"### {say(name)}"
            if name != "distribution":
                yield say(f"{name}_about")
            yield self._picture(f"self-{name}", str(standalone(chart)), say(name))
        found = own.distribution.statistics
        yield _statistics(found, say)
        yield f"### {say('easiest')}"
        yield self._pairs(own.easiest)

    def tests(self, analysis: Analysis) -> str:
        shown, count = analysis.tests[:TEST_SECTIONS], len(analysis.tests)
        parts = [self.say("tests_about")]
        if len(shown) < count:
            parts.append(self.say("tests_shown", shown=len(shown), count=count))
        for place, test in enumerate(shown, start=1):
            name = self.say("query" if test.asked else "test")
            parts += [f"### {name} {place}: {code(test.name)}", *self._test(test, place)]
        return "\n\n".join(parts)

    def _test(self, test: TestAnalysis, place: int) -> Iterator[str]:
        say = self.say
        if test.own_ranking:
            yield say("test_own")
        if test.zero:
            yield say("test_zero")
            return
        for side, rows in (("proponents", test.proponents), ("opponents", test.opponents)):
            yield f"**{say(side)}**"
            yield self._pairs(rows, signed=True) if rows else say(f"no_{side}")
        for name, chart in pictures.of_test(test, say).items():
            words = say("test_heat") if name == "heat" else say(name)
            yield self._picture(f"test-{place}-{name}", standalone(chart), f"{words}: {test.name}")

    def accuracy(self, analysis: Analysis) -> Iterator[str]:
        chart = pictures.of_accuracy(analysis, self.say)
        if chart is not None:
            yield self._picture("accuracy", standalone(chart), self.say("accuracy"))
            yield self.say("accuracy_about")

    def _pairs(self, rows: Sequence[PairRow], *, signed: bool = False) -> str:
        """A table of pairs, both items of each side by side."""
        say = self.say
        names = [name for name in _FACTS if not signed and any(name in row.facts for row in rows)]
        heads = ("#", say("first"), say("second"), say("influence" if signed else "self_score"), *map(say, names))
        lines = []
        for rank, row in enumerate(rows, start=1):
            both = [self._item(item) for item in row.items] if row.items else [code(row.pair), ""]
            if target := row.facts.get("target"):
                both[target < 0] += " ▲"
            sign = "+" if signed and row.score > 0 else ""
            known = [_fact(name, row.facts.get(name)) for name in names]
            lines.append((str(rank), *both, f"{sign}{figure(row.score)}", *known))
        return _table(heads, lines)

    def _item(self, item: str) -> str:
        view = self._views.get(item)
        parts = [code(item)]
        if view is not None and view.text:
            parts.append(plain(view.text))
        if view is not None and view.row:
            parts.append(plain(", ".join(f"{name} {value}" for name, value in view.row.items())))
        if view is not None and view.picture is not None:
            name = f"item-{self._places[item]}.{_ENDINGS[view.picture_type]}"
            self.pictures[name] = view.picture
            parts.insert(0, f"![{plain(item)}]({self._folder_link()}/{name})")
        return "<br>".join(parts)

    def _picture(self, name: str, chart: str, words: str) -> str:
        self.pictures[f"{name}.svg"] = chart.encode("utf-8", "backslashreplace")
        return f"![{plain(words)}]({self._folder_link()}/{name}.svg)"

    def _folder_link(self) -> str:
        return "".join(sign if sign.isalnum() or sign in "-_." else f"%{ord(sign):02X}" for sign in self._folder)


def _warned(analysis: Analysis, say: Say) -> Iterator[str]:
    found = list(warnings(analysis, say))
    if found:
        yield f"## {say('oddities')}"
        yield _listed([f"{each.what} {each.reason} ({each.where})" for each in found])


def _compared(found: Compared | None, say: Say) -> Iterator[str]:
    if found is None:
        return
    yield f"## {say('compare')}"
    yield from map(_sentence, found.sentences)
    for each in found.tables:
        yield f"### {each.heading}"
        yield each.about
        rows = [[code(cell) if place < each.names else cell for place, cell in enumerate(row)] for row in each.rows]
        yield _table(each.heads, rows)


def _groups(rows: Sequence[Spread], name: str, say: Say) -> Iterator[str]:
    if rows:
        heads = (name, say("mean"), say("quartiles"), say("largest"), say("pairs"))
        yield _table(
            heads,
            [
                (
                    code(each.name),
                    figure(each.mean),
                    f"{figure(each.lower_quartile)} – {figure(each.upper_quartile)}",
                    figure(each.maximum),
                    f"{each.pairs:,}",
                )
                for each in rows
            ],
        )


def _statistics(found: Statistics, say: Say) -> str:
    return say(
        "statistics",
        count=f"{found.count:,}",
        minimum=figure(found.minimum),
        lower=figure(found.lower_quartile),
        median=figure(found.median),
        upper=figure(found.upper_quartile),
        maximum=figure(found.maximum),
        mean=figure(found.mean),
        zero=percent(found.zero_share),
    )


def _fact(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if name == "active_share":
        return percent(value)
    return f"{value:,.0f}" if name in _WHOLE else figure(value)


def _listed(sentences: Sequence[str], mark: str = "- ") -> str:
    return "\n".join(f"{mark}{_sentence(each)}" for each in sentences)


def _sentence(sentence: str) -> str:
    return "".join(code(part) if is_id else plain(part) for part, is_id in parts_of(sentence))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
