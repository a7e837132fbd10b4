"""A task of texts: sentences as counts of letters, whose ids and texts look like markup."""

from pathlib import Path

SOURCE = """
import torch
from torch import nn

import tracin_func as ti

TEXTS = (
    "<script>document.title = 'broken'</script> first answer",
    "[bold]second[/bold] answer & more",
    "a third answer, much longer " + "and longer " * 30,
    "四 the fourth | answer `code` *stars*",
    "fifth",
    "sixth answer",
)
IDS = ("<b>one</b>", "[red]two[/red]", "three " + "x" * 70, "四|4", "a'five\\"", "six&amp;")


def make() -> ti.Task:
    letters = torch.tensor([[text.count(sign) for sign in "aeinort"] for text in TEXTS], dtype=torch.float32)
    torch.manual_seed(0)
    scorer = nn.Sequential(nn.Linear(7, 4), nn.Softplus(), nn.Linear(4, 1))
    first = {name: value.clone() for name, value in scorer.state_dict().items()}
    second = {name: value + 0.1 for name, value in first.items()}
    return ti.Task(
        scorer,
        letters,
        ti.Pairs([0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 5, 3], [1, -1, 1, 1, -1, 1]),
        [ti.Checkpoint(first, 0.1, "early"), ti.Checkpoint(second, 0.1, "late")],
        test=ti.Pairs([0, 2], [5, 4], [1, 1]),
        loss=ti.LogisticLoss(),
        item_ids=IDS,
        show_item=lambda place: TEXTS[place] if place != 4 else {"answer": TEXTS[4], "length": len(TEXTS[4])},
    )
"""


def written(folder: Path) -> str:
    """The task as `FILE.py:make`."""
    path = folder / "text_task.py"
    path.write_text(SOURCE, encoding="utf-8")
    return f"{path}:make"
