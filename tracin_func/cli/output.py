"""Where the scores of a run go: its files, and beside them where they come from."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracin_func.cli.errors import interruption
from tracin_func.cli.options import is_given
from tracin_func.cli.tasks import EMBEDDED, Tell, stem_of
from tracin_func.errors import InputError
from tracin_func.files import present, real_path
from tracin_func.results.files.origins import read_provenance
from tracin_func.results.files.registry import format_of
from tracin_func.results.influence import Influence, SelfInfluence
from tracin_func.results.names import SELF_COLUMN
from tracin_func.scoring.score import Scores

# Names of files, by score and by whether they hold a column for each checkpoint.
NAMES = {
    ("self", False): "{}_metadata",
    ("self", True): "{}_per_checkpoint_metadata",
    ("influence", False): "{}_influence_metadata",
    ("influence", True): "{}_per_checkpoint_influence_metadata",
    ("strongest", False): "{}_influence_strongest",
}
PATHS = (
    "data_root",
    "checkpoint_dir",
    "metadata_dir",
    "store",
    "exclusions_file",
    "pairs",
    "test_pairs",
)  # may name a path
SPECS = ("model", "task")  # FILE.py:Name
# Options that change no score and no file.
TOLD = ("repeat", "shard", "dry_run", "explain_plan", "verify", "by", "top", "quiet", "json", "debug")


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

    def check(self, kind: str, named: bool) -> None:
        """Faults of the files that are there, found before hours of computing."""
        for (name, per_checkpoint), path in self.files.items():
            columns = [self.column or SELF_COLUMN] if name == "self" and not per_checkpoint else []
            format_of(path).check(path, columns)
            conflict = None if named else format_of(path).conflict(path, kind == EMBEDDED)
            if conflict is not None:
                raise InputError(conflict)

    def save(self, scores: Scores, tell: Tell) -> None:
        """Every file, before anything is printed: a reader of the tables who leaves early loses none."""
        results: dict[str, SelfInfluence | Influence | None] = {
            "influence": scores.influence,
            "self": scores.self_influence,
        }
        command = [Path(sys.argv[0]).name, *sys.argv[1:]]
        with interruption(f"each of {self} is as it was or holds the new scores"):
            for (name, per_checkpoint), path in self.files.items():
                result = results[name]
                assert result is not None
                self._tell_replaced(path, result, tell)
                result.save(
                    path,
                    column=self.column,
                    per_checkpoint=per_checkpoint,
                    command=command,
                    options=self.options,
                )

    def _tell_replaced(self, path: Path, result: SelfInfluence | Influence, tell: Tell) -> None:
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
            tell(f"note: {path} held {name}{more} with another loss ({words}); equal names are replaced now.")

    def described(self) -> dict[str, str]:
        """The files by what they hold, for a document."""
        return {f"{name}{'_per_checkpoint' if each else ''}": str(path) for (name, each), path in self.files.items()}

    def __str__(self) -> str:
        return ", ".join(map(str, self.files.values()))


def output_of(kind: str, options: Mapping[str, Any], scores: tuple[str, ...]) -> Output:
    """The files that the options ask for, of these scores."""
    folder, stem = Path(options["metadata_dir"] or "metadata"), stem_of(kind, options)
    if options.get("keep") is not None:
        scores = ("strongest",)
    ending = options["format"] or ("json" if options.get("keep") is None else "parquet")
    kinds = (False, True) if options["per_checkpoint"] else (False,)
    files = {
        (name, each): present(folder / f"{NAMES[name, each].format(stem)}.{ending}")
        for each in kinds
        for name in scores
    }
    return Output(files, options["score_name"], given(options))


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as they can be given again from any folder: paths absolute."""
    kept = {name: value for name, value in options.items() if is_given(value) and name not in TOLD}
    for name in PATHS:
        if name in kept and (isinstance(kept[name], Path) or Path(str(kept[name])).is_file()):
            kept[name] = str(kept[name]) if str(kept[name]) == "none" else str(Path(kept[name]).absolute())
    for name in SPECS:
        place, _, what = str(kept.get(name, "")).rpartition(":")
        if place.endswith(".py"):
            kept[name] = f"{Path(place).absolute()}:{what}"
    return kept
