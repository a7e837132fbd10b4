"""Where the scores of a run go: its files, and beside them where they come from."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracin_func.cli.errors import interruption
from tracin_func.cli.options import InfluenceOptions, ResultOptions
from tracin_func.errors import InputError
from tracin_func.files import present, real_path
from tracin_func.results.files.origins import read_provenance
from tracin_func.results.files.registry import format_of
from tracin_func.results.influence import Influence, SelfInfluence
from tracin_func.results.names import SELF_COLUMN
from tracin_func.results.top import StreamedSelfInfluence, TopInfluences
from tracin_func.sources.options import PATHS, Options
from tracin_func.sources.source import Source

Result = SelfInfluence | Influence | TopInfluences | StreamedSelfInfluence

# Names of files, by score and by whether they hold a column for each checkpoint.
FILE_NAMES = {
    ("self", False): "{}_metadata",
    ("self", True): "{}_per_checkpoint_metadata",
    ("influence", False): "{}_influence_metadata",
    ("influence", True): "{}_per_checkpoint_influence_metadata",
    ("strongest", False): "{}_influence_strongest",
}
SPECS = ("model", "task")  # FILE.py:Name
# Options that change no score and no file.
NOT_RECORDED = ("repeat", "shard", "dry_run", "explain_plan", "verify", "by", "top", "quiet", "json", "debug")


@dataclass(frozen=True)
class Output:
    """The files of a run by score and by whether they are per checkpoint.

    Args:
        files: where each goes.
        column: what the user calls the scores; None for our names.
        options: those given, for the record.
    """

    files: Mapping[tuple[str, bool], Path]
    column: str | None
    options: Mapping[str, Any]

    def check(self, *, synthetic: bool, named: bool) -> None:
        """Faults of the files that are there, found before hours of computing."""
        for (name, per_checkpoint), path in self.files.items():
            columns = [self.column or SELF_COLUMN] if name == "self" and not per_checkpoint else []
            format_of(path).check(path, columns)
            conflict = None if named else format_of(path).conflict(path, synthetic)
            if conflict is not None:
                raise InputError(conflict)

    def save(self, results: Mapping[str, Result], report: Callable[[str], None]) -> None:
        """Every file, before anything is printed: a reader of the tables who leaves early loses none."""
        command = [Path(sys.argv[0]).name, *sys.argv[1:]]
        with interruption(f"each of {self} is as it was or holds the new scores"):
            for (name, per_checkpoint), path in self.files.items():
                result = results["influence" if name == "strongest" else name]
                named: dict[str, Any] = {}
                if isinstance(result, SelfInfluence | Influence):
                    self._report_replaced(path, result, report)
                    named = {"column": self.column, "per_checkpoint": per_checkpoint}
                result.save(path, command=command, options=self.options, **named)

    def _report_replaced(self, path: Path, result: SelfInfluence | Influence, report: Callable[[str], None]) -> None:
        """Say where scores of another loss give way to these."""
        start = self.column or (SELF_COLUMN if isinstance(result, SelfInfluence) else result.column)
        own = dict(result.run.loss)
        others = {
            name: entry["loss"]
            for name, entry in read_provenance(real_path(path)).items()
            if (name == start or name.startswith(f"{start}_")) and isinstance(entry, dict) and entry.get("loss") != own
        }
        if others:
            name, loss = next(iter(others.items()))
            words = ", ".join(f"{key} {value}" for key, value in loss.items())
            more = f" and {len(others) - 1} more columns" if len(others) > 1 else ""
            report(f"note: {path} held {name}{more} with another loss ({words}); equal names are replaced now.")

    def described(self) -> dict[str, str]:
        """The files by what they hold, for a document."""
        return {f"{name}{'_per_checkpoint' if each else ''}": str(path) for (name, each), path in self.files.items()}

    def __str__(self) -> str:
        return ", ".join(map(str, self.files.values()))


def output_of(source: Source, scores: tuple[str, ...]) -> Output:
    """The files that the options of a run ask for, of these scores."""
    own, keep = source.options[ResultOptions], source.options[InfluenceOptions].keep
    ending = own.format or ("json" if keep is None else "parquet")
    kinds = (False, True) if own.per_checkpoint else (False,)
    folder = own.metadata_dir or Path("metadata")
    files = {
        (name, each): present(folder / f"{FILE_NAMES[name, each].format(source.stem)}.{ending}")
        for each in kinds
        for name in (scores if keep is None else ("strongest",))
    }
    return Output(files, own.score_name, recorded(source.options))


def recorded(options: Options) -> dict[str, Any]:
    """The options that were given, as they can be given again from any folder: paths absolute."""
    kept, table = {name: value for name, value in options.given().items() if name not in NOT_RECORDED}, options.table
    for name, value in kept.items():
        if name in SPECS:
            place, _, what = str(value).rpartition(":")
            if place.endswith(".py"):
                kept[name] = f"{Path(place).absolute()}:{what}"
        elif table[name].kind == PATHS:
            kept[name] = [str(path.absolute()) for path in value]
        elif isinstance(value, Path) or (table[name].path and Path(str(value)).is_file()):
            kept[name] = str(value) if str(value) == "none" else str(Path(value).absolute())
    return kept
