"""`tracin-func report`: a report of result files, or of a run that it starts."""

import os
from collections.abc import Mapping
from dataclasses import replace as replace_fields
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tracin_func.cli.errors import interruption, printing, say
from tracin_func.cli.options import INFLUENCE, in_flags
from tracin_func.cli.score import Done, score_all
from tracin_func.cli.view_options import ReportOptions
from tracin_func.errors import OutputError, UsageError
from tracin_func.files import Content, locked, present, real_path, replace, require_writable
from tracin_func.report.content.analysis import Analysis, analyse
from tracin_func.report.content.comparing import Compared, compared_with, comparison
from tracin_func.report.content.evidence import Evidence, from_files, from_results
from tracin_func.report.content.sentences import MARK
from tracin_func.report.content.views import item_views, shower
from tracin_func.report.html.page import comparison_section, page
from tracin_func.report.languages.registry import sayer
from tracin_func.report.markdown.document import document
from tracin_func.results.files.read import read_result
from tracin_func.results.influence import Influence, SelfInfluence
from tracin_func.sources.options import Options, declared, flag, groups_of
from tracin_func.sources.python.loading import load_task
from tracin_func.sources.python.options import PythonOptions
from tracin_func.sources.recordings.options import RecordingOptions
from tracin_func.task.item_view import ItemView
from tracin_func.task.task import Task

TOP = 10
REPORT_NAMES = {"html": "tracin_report.html", "markdown": "tracin_analysis_report.md"}
LOCK_TIMEOUT = 60.0
# Options that say more about the items of files; the others are of a run.
_OF_ITEMS = ("data_root", "task", "sample_rate", "clip_seconds")


class Written(NamedTuple):
    """What is written, in whatever form."""

    analysis: Analysis
    lang: str
    views: Mapping[str, ItemView]
    title: str
    compared: Compared | None


def report(options: Options) -> None:
    """Write a report of the files, or of a run.

    Raises:
        UsageError, InputError, OutputError: see `errors`; an older report is then as it was.
    """
    own = options[ReportOptions]
    form = own.format or "html"
    path = present(own.output or Path(REPORT_NAMES[form]))
    _require_own(path)
    if own.compare is not None:
        read_result(own.compare)  # before anything is scored
    if own.files:
        paths = [present(each) for each in own.files]
        _require_no_run(options)
        named = options[PythonOptions].task
        task = None if named is None else load_task(named)
        _write(path, form, options, from_files(paths), task)
        return
    for done in _scored(options):
        _write(path, form, options, _evidence(done), done.task)


def _scored(options: Options) -> list[Done]:
    """The runs that the options ask for, whose scores are then in their files."""
    own = {name for name in declared(ReportOptions) if name not in ("metadata_dir", "debug")}
    values = {name: value for name, value in options.values.items() if name not in own}
    if values.get("frequency") == "all":
        raise UsageError('`frequency="all"` makes several runs, and a report is about one. Name one `frequency`.')
    groups = groups_of(INFLUENCE)
    return score_all("influence", Options(groups, {**values, "with_self": True}).checked(), tables=False)


def _evidence(done: Done) -> Evidence:
    paths = {name: path for (name, per_checkpoint), path in done.output.files.items() if not per_checkpoint}
    results = [(result, paths[name]) for name, result in done.results.items()]
    return from_results((each, path) for each, path in results if isinstance(each, SelfInfluence | Influence))


def _write(path: Path, form: str, options: Options, evidence: Evidence, task: Task | None) -> None:
    own, top = options[ReportOptions], options[ReportOptions].top or TOP
    evidence = replace_fields(evidence, records=tuple(map(_in_flags, evidence.records)))
    analysis = analyse(evidence, top=top, sides=max(1, round(0.3 * top)))
    views = item_views(analysis.shown_items, shower(_origin(options, evidence), task))
    lang, title = own.lang or "en", _title(evidence)
    compared = None
    if own.compare is not None:
        compared = comparison(compared_with(evidence, own.compare), evidence, own.compare, sayer(lang))
    real = real_path(path)
    require_writable(real)
    with locked(real, LOCK_TIMEOUT):
        replace(real, _contents(real, form, Written(analysis, lang, views, title, compared)))
    with interruption(f"the report is in {path}"), printing():
        for scored in () if own.files else evidence.files:
            print(f"Written  {scored} (+ .provenance.json)")
        print(f"Written  {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if not views and evidence.classes:
        say("note: no recordings are shown. Name their folder with --data-root.")


def _contents(path: Path, form: str, of: Written) -> list[tuple[Path, Content]]:
    """Each file of a report and what it holds; the folder of pictures is there then."""
    if form == "html":
        more = [] if of.compared is None else [comparison_section(of.compared, of.lang)]
        return [(path, page(of.analysis, of.lang, of.views, of.title, more))]
    folder = path.with_name(f"{path.stem}_files")
    text, pictures = document(of.analysis, of.lang, of.views, of.title, folder.name, of.compared)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"`{folder}` cannot be made: {error.strerror}. Name another file with `output`.") from error
    return [*((folder / name, partial(_put, content)) for name, content in pictures.items()), (path, text)]


def _put(content: bytes, stream: BinaryIO) -> None:
    stream.write(content)


def _origin(options: Options, evidence: Evidence) -> dict[str, Any]:
    """What provenance says about the source; options win."""
    own = options[RecordingOptions]
    given: dict[str, Any] = {"sample_rate": own.sample_rate, "clip_seconds": own.clip_seconds}
    if own.data_root is not None:
        given["data_root"] = str(own.data_root)
    return {**evidence.origin, **{name: value for name, value in given.items() if value is not None}}


def _in_flags(record: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance whose notices name settings as options of the command line."""
    notices = record.get("notices")
    found = [in_flags(str(each)) for each in notices] if isinstance(notices, list) else []
    return {**record, "notices": found}


def _title(evidence: Evidence) -> str:
    """What the scores are of: material and tone, otherwise the name of the first file."""
    named = [evidence.origin.get(name) for name in ("material", "frequency")]
    if all(named):
        return " ".join(map(str, named))
    return (
        evidence.files[0].name.partition(".")[0].removesuffix("_metadata").removesuffix("_influence").replace("_", " ")
    )


def _require_no_run(options: Options) -> None:
    kept = {*declared(ReportOptions), *_OF_ITEMS}
    table = options.table  # variables are for runs, too, and may be set for them
    asked = [name for name in options.given() if name not in kept and table[name].environment not in os.environ]
    if given := [flag(name) for name in asked]:
        raise UsageError(f"{given[0]} changes a run, and files are reported as they are. Leave one of them out.")


def _require_own(path: Path) -> None:
    """Refuse to replace a file that is no report."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(4000)
    if start and MARK.encode() not in start:
        raise OutputError(f"`{path}` exists and is no report of tracin-func. Name another file with `output`.")
