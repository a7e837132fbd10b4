"""A file that was cut short is found by its ends, before it is its turn, and without reading it."""

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import tracin_func as ti
from tracin_func.task.checkpoint_ends import require_complete

STATE = {"weight": torch.ones(1, 300), "bias": torch.zeros(1)}


def cut(path: Path, to: int) -> None:
    os.truncate(path, to if to >= 0 else path.stat().st_size + to)


def folder_of(path: Path) -> Path:
    """A checkpoint in two shards."""
    names = {"weight": "model-1.safetensors", "bias": "model-2.safetensors"}
    path.mkdir()
    for name, file in names.items():
        safetensors.torch.save_file({name: STATE[name]}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return path


class TestEnds:
    def test_whole_files_pass(self, tmp_path: Path) -> None:
        torch.save(STATE, tmp_path / "zip.pt")
        torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
        safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
        for name in ("zip.pt", "old.pt", "model.safetensors"):
            require_complete(tmp_path / name)
        require_complete(folder_of(tmp_path / "shards"))

    @pytest.mark.parametrize("to", [0, 1, 100, -1])
    @pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "shards/model-2.safetensors"])
    def test_a_file_cut_short_is_refused(self, name: str, to: int, tmp_path: Path) -> None:
        folder_of(tmp_path / "shards")
        torch.save(STATE, tmp_path / "model.pt")
        safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
        path = tmp_path / name
        cut(path, min(to, path.stat().st_size - 1))
        with pytest.raises(ti.InputError, match=rf"{path.name}: not a readable"):
            require_complete(tmp_path / name.split("/")[0])

    def test_a_header_of_impossible_length_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        safetensors.torch.save_file(STATE, path)
        path.write_bytes(b"\x00\x00\x00\x00\x00\x00\x00\x7f" + path.read_bytes()[8:])
        with pytest.raises(ti.InputError, match=r"model.safetensors: not a readable"):
            require_complete(path)

    def test_nothing_between_the_ends_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "model_epoch_1.pt"
        torch.save(STATE, path)
        content = path.read_bytes()
        with open(path, "wb") as file:  # with a hole of a terabyte
            file.write(content[:100])
            file.seek(1 << 40)
            file.write(content[-100:])
        require_complete(path)

    @pytest.mark.parametrize("name", ["nothing.pt", "an empty folder"])
    def test_what_is_no_checkpoint_is_refused(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "an empty folder").mkdir()
        with pytest.raises(ti.InputError, match=rf"{name}: (no such|a folder without)"):
            require_complete(tmp_path / name)


def test_a_run_finds_it_before_it_scores(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        torch.save({"model_state_dict": STATE}, tmp_path / f"model_epoch_{epoch}.pt")
    cut(tmp_path / "model_epoch_3.pt", -100)
    checkpoints = [ti.Checkpoint(path, 0.1) for path in ti.find_checkpoints(tmp_path)]
    task = ti.Task(nn.Linear(300, 1), torch.randn(4, 300), ti.Pairs([0, 1], [2, 3], [1, -1]), checkpoints)
    opened: list[str] = []
    with pytest.raises(ti.InputError, match=r"model_epoch_3.pt: not a readable checkpoint"):
        ti.self_influence(task, observer=ti.Observer(opened=lambda name, _: opened.append(name)))
    assert not opened
