"""The page: an analysis, the items that are shown and the sentences of a language, put into the template."""

import base64
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tracin_func.report.content import pictures
from tracin_func.report.content.analysis import ITEM_ROWS, TEST_SECTIONS, Analysis
from tracin_func.report.content.charts import DARK, LIGHT, STYLE, figure
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
from tracin_func.report.html.table import as_script, packed, table
from tracin_func.report.languages.registry import sayer
from tracin_func.task.item_view import ItemView

_ENVIRONMENT = Environment(
    loader=PackageLoader("tracin_func.report.html"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def coded(sentence: str) -> Markup:
    """A sentence whose ids are set as code."""
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if code else part for part, code in parts_of(sentence)
    )


_ENVIRONMENT.filters |= {"figure": figure, "percent": percent, "coded": coded}


class Section(NamedTuple):
    """A section that another part of the package adds: its anchor, its title, and its content."""

    anchor: str
    title: str
    content: Markup


def page(analysis: Analysis, lang: str, views: Mapping[str, ItemView], title: str, more: Sequence[Section] = ()) -> str:
    """The text of an HTML file that needs nothing else.

    Args:
        analysis: the numbers.
        lang: a language of the registry.
        views: what is shown of items, by id.
        title: what the scores are of.
        more: sections after those of the test pairs.
    """
    say = sayer(lang)
    shown = analysis.tests[:TEST_SECTIONS]
    own = analysis.own
    words = ("rows", "previous", "next", "range", "nothing", "play", "pair", "first", "second", "too_old")
    data, data_type = packed(as_script(table(analysis, say)))
    return (
        _ENVIRONMENT.get_template("page.html")
        .render(
            a=analysis,
            t=say,
            lang=lang,
            title=title,
            mark=MARK,
            version=version("tracin-func"),
            style=Markup(_style()),
            code=Markup(_source("behaviour.js")),
            own=own,
            charts=pictures.of_self(own, say) if own else {},
            accuracy=pictures.of_accuracy(analysis, say),
            tests=[(test, pictures.of_test(test, say)) for test in shown],
            items=analysis.by_item[:ITEM_ROWS],
            more=more,
            lead=lead(analysis, say),
            findings=findings(analysis, say),
            cautions=cautions(analysis, say),
            averaged=averaged(analysis),
            warnings=list(warnings(analysis, say)),
            advice=advised(analysis, say),
            commands=commands(analysis, say, with_media=bool(views)),
            facts=facts(analysis, say),
            views=views,
            places={item: place for place, item in enumerate(views)},
            has_spectrograms=any(view.axes for view in views.values()),
            pictures=[(place, data_uri(view.picture_type, view.picture)) for place, view in enumerate(views.values())],
            data=Markup(data),
            data_type=data_type,
            sounds=Markup(as_script([data_uri(view.sound_type, view.sound) for view in views.values()])),
            words=Markup(as_script({name: _template(say, name) for name in words})),
        )
        .lstrip()
    )


def comparison_section(found: Compared, lang: str) -> Section:
    """What changed, as a section for `page`."""
    content = _ENVIRONMENT.get_template("comparison.html").render(found=found)
    return Section("compare", sayer(lang)("compare"), Markup(content))


def data_uri(kind: str, content: bytes | None) -> str:
    """A file within the page; empty without one."""
    return "" if content is None else f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _template(say: Any, name: str) -> str:
    """A sentence whose places are filled in by the page."""
    return str(say(name, **{"from": "{from}", "to": "{to}", "count": "{count}", "item": "{item}"}))


def _style() -> str:
    base = _source("style.css")
    dark = f"{DARK};"
    return (
        f":root{{{LIGHT}}}@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}"
        f"color-scheme:dark}}}}@media screen{{:root[data-theme=dark]{{{dark}color-scheme:dark}}}}{STYLE}{base}"
    )


def _source(name: str) -> str:
    """A file beside the template, as it is."""
    assert _ENVIRONMENT.loader is not None
    return _ENVIRONMENT.loader.get_source(_ENVIRONMENT, name)[0]
