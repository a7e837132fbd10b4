"""Whole result files of the lab, made of the pairs it drew and the scores it saved."""

import json
from pathlib import Path

from tests.support.places import DATA, ROOT

# The files themselves lie beside the repository, for those who have them.
SEED = ROOT.parent / "shared" / "data" / "seed_metadata"
TONES = ("500hz", "1000hz")


def lab_names(frequency: str) -> tuple[list[str], list[str]]:
    """The 441 keys and five columns of the lab's influence file, in order."""
    drawing = json.loads((DATA / "lab_drawing_seed42.json").read_text())
    ids = [f"plastic_deg{degree:03}_{frequency}_{take:02}" for degree in range(0, 181, 36) for take in range(9)]
    keys, columns = ([f"{ids[a]}_{ids[b]}" for a, b in drawing[table]] for table in ("train_pairs", "test_pairs"))
    return keys, [f"tracin_influence_{name}" for name in columns]


def influence_file(frequency: str, folder: Path) -> Path:
    """The lab's influence file, its scores to 3 decimals."""
    keys, columns = lab_names(frequency)
    scores = json.loads((DATA / "lab_influence_scores.json").read_text())[frequency]
    table = {pair: dict(zip(columns, row, strict=True)) for pair, row in zip(keys, scores, strict=True)}
    path = folder / f"plastic_{frequency}_influence_metadata.json"
    path.write_text(json.dumps(table, indent=2))
    return path
