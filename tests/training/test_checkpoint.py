"""Checkpoints saved during any training loop are those that scores read."""

from pathlib import Path

import pytest
import torch
from torch import nn

import tracin_func as ti

ITEMS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
PAIRS = ti.Pairs([0, 1, 2, 3], [1, 2, 3, 4], [1, -1, 1, 1])


def trained(folder: Path) -> tuple[nn.Module, list[Path]]:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    paths = []
    for step in range(1, 4):
        optimizer.zero_grad()
        model(ITEMS).sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] /= 2
        paths.append(ti.save_checkpoint(model, optimizer, step, folder / "run", train_accuracy=0.5))
    return model, paths


def test_scores_of_a_loop_with_the_callback(tmp_path: Path) -> None:
    model, paths = trained(tmp_path)
    assert ti.find_checkpoints(tmp_path / "run") == paths
    found = ti.self_influence(ti.Task(model, ITEMS, PAIRS, [ti.Checkpoint(path) for path in paths]))
    assert [each["learning_rate"] for each in found.run.checkpoints] == [0.25, 0.125, 0.0625]
    assert [each["recorded"]["train_accuracy"] for each in found.run.checkpoints] == [0.5] * 3
    last = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    right = ti.self_influence(ti.Task(model, ITEMS, PAIRS, [ti.Checkpoint(last, 0.0625)]))
    assert torch.equal(found.per_checkpoint[-1:], right.per_checkpoint)


def test_a_checkpoint_is_replaced_as_a_whole(tmp_path: Path) -> None:
    _, paths = trained(tmp_path)
    before = paths[0].read_bytes()

    class Unwritable:
        def __reduce__(self) -> str:
            raise OSError(28, "No space left on device")

    with pytest.raises(ti.OutputError, match="No space left on device"):
        ti.save_checkpoint(nn.Linear(3, 1), None, 1, paths[0].parent, args={"odd": Unwritable()})
    assert paths[0].read_bytes() == before
    assert sorted(path.name for path in paths[0].parent.iterdir()) == [path.name for path in paths]


def test_what_is_wrong_in_itself(tmp_path: Path) -> None:
    with pytest.raises(ti.UsageError, match="`step` should be at least 0. Got -1."):
        ti.save_checkpoint(nn.Linear(3, 1), None, -1, tmp_path)
    with pytest.raises(ti.UsageError, match="`epoch` is a part of the file"):
        ti.save_checkpoint(nn.Linear(3, 1), None, 1, tmp_path, epoch=3)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ti.OutputError, match="is not a folder"):
        ti.save_checkpoint(nn.Linear(3, 1), None, 1, tmp_path / "file" / "run")


def test_a_task_takes_the_paths_that_are_found(tmp_path: Path) -> None:
    model, paths = trained(tmp_path)
    task = ti.Task(model, ITEMS, PAIRS, ti.find_checkpoints(tmp_path / "run"))  # type: ignore[arg-type]
    assert [each.source for each in task.checkpoints] == paths
    assert repr(task) == "Task(Linear: 6 items, 4 training pairs, no test pairs, 3 checkpoints)"
    with pytest.raises(
        ti.InputError, match="`checkpoints` should be a list of Checkpoint, path or state dict. Got one"
    ):
        ti.Task(model, ITEMS, PAIRS, tmp_path / "run")  # type: ignore[arg-type]
