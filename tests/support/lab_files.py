"""Whole result files of the lab, made of the pairs it drew and the scores it saved."""

import json
from pathlib import Path

from tests.support.places import DATA, ROOT

# The files themselves lie beside the repository, for those who have them.
SEED = ROOT.parent / "shared" / "data" / "seed_metadata"
TONES = ("500hz", "1000hz")


def influence_file(tone: str, folder: Path) -> Path:
    """A file of 441 pairs and five test columns, as the lab's own; scores have 3 decimals."""
    drawing = json.loads((DATA / "lab_drawing_seed42.json").read_text())
    scores = json.loads((DATA / "lab_influence_scores.json").read_text())[tone]

    def name(pair: list[int]) -> str:
        takes, classes = drawing["takes"], drawing["classes"]
        return "_".join(f"plastic_{classes[item // takes]}_{tone}_{item % takes:02}" for item in pair)

    columns = [f"tracin_influence_{name(pair)}" for pair in drawing["test_pairs"]]
    rows = zip(map(name, drawing["train_pairs"]), scores, strict=True)
    path = folder / f"plastic_{tone}_influence_metadata.json"
    path.write_text(json.dumps({pair: dict(zip(columns, row, strict=True)) for pair, row in rows}, indent=2))
    return path
