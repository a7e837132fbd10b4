"""How many small faults in the package the tests catch: one at a time, chosen by seed, each in a copy of the tree.

    python -m tests.mutations --count 60 --seed 0

A mutation swaps an operator, comparison, constant or condition in a module of scoring, gradients, losses or files;
constants of a module (sizes, tolerances) are left alone. It is caught when a test fails; the tests of the module's own
room run first. Survivors are listed with their line, to be looked at: some change nothing that can be seen.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = ("scoring", "gradients/engines", "gradients/representations", "losses", "results/files", "files.py")
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


@dataclass(frozen=True)
class Mutation:
    """A change of one node of a module."""

    path: Path
    number: int
    line: int
    what: str


def sites(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """The nodes that can be changed, in the order of a walk, and what the change is."""
    left = {id(inner) for node in ast.walk(tree) for part in _annotations(node) for inner in ast.walk(part)}
    left |= {id(inner) for node in ast.iter_child_nodes(tree) if _is_constant(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in left:
            continue
        if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in OPERATORS:
            yield node, "operator"
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
            yield node, "comparison"
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            yield node, "unary operator"
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            yield node, "condition"
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
            yield node, "constant"


def mutated(source: str, number: int) -> str:
    """The module with its site `number` changed."""
    tree = ast.parse(source)
    node, what = list(sites(tree))[number]
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        node.op = OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Compare):
        node.ops[0] = OPERATORS[type(node.ops[0])]()
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    else:
        assert isinstance(node, ast.UnaryOp), what
        if isinstance(node.op, ast.USub):
            node.op = ast.UAdd()
        else:  # twice is not at all
            node.operand = ast.UnaryOp(node.op, node.operand)
    return ast.unparse(ast.fix_missing_locations(tree))


def chosen(count: int, seed: int) -> list[Mutation]:
    """Mutations by seed, each module as likely as it has sites."""
    every = []
    for place in PLACES:
        path = ROOT / "tracin_func" / place
        for module in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            for number, (node, what) in enumerate(sites(ast.parse(module.read_text(encoding="utf-8")))):
                every.append(Mutation(module.relative_to(ROOT), number, getattr(node, "lineno", 0), what))
    return random.Random(seed).sample(every, count)


def tests_of(path: Path) -> list[list[str]]:
    """The tests to run for a module, in turn: its own file, its room, and all."""
    room = Path("tests", *path.parts[1:-1])
    steps = [[str(room / f"test_{path.stem}.py")]] if (ROOT / room / f"test_{path.stem}.py").is_file() else []
    while not (ROOT / room).is_dir():
        room = room.parent
    steps += [[str(room)]] if room != Path("tests") else []
    return [*steps, ["tests/scoring", "tests/results", "tests/losses"], ["tests"]]


def caught(mutation: Mutation, timeout: float) -> str | None:
    """The first test that fails; None where all pass."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", ".*_cache"))
        (copy / mutation.path).write_text(mutated((ROOT / mutation.path).read_text("utf-8"), mutation.number), "utf-8")
        environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        for tests in tests_of(mutation.path):
            cache = Path(tempfile.gettempdir()) / "tracin-func-mutations"
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-n",
                "0",
                "--tb=no",
                "-o",
                f"cache_dir={cache}",
                *tests,
            ]
            try:
                run = subprocess.run(
                    [*command, "--deselect", "tests/test_structure.py", "--deselect", "tests/test_words.py"],
                    cwd=copy,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=timeout,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return "ran out of time"
            if run.returncode:
                failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
                return failed[0].split(" - ")[0] if failed else f"exit code {run.returncode}"
    return None


def main() -> None:
    """Print a line per mutation, and at the end how many were caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="1/1", metavar="I/N", help="only every N-th, from the I-th")
    parser.add_argument("--timeout", type=float, default=900, help="seconds of tests, then caught")
    given = parser.parse_args()
    part, parts = map(int, given.part.split("/"))
    mine = chosen(given.count, given.seed)[part - 1 :: parts]
    survivors = 0
    for mutation in mine:
        by = caught(mutation, given.timeout)
        survivors += by is None
        before = (ROOT / mutation.path).read_text(encoding="utf-8").splitlines()[mutation.line - 1].strip()
        print(f"{mutation.path}:{mutation.line} {mutation.what}: {before}\n    {by or 'SURVIVED'}", flush=True)
    print(f"{len(mine) - survivors} of {len(mine)} mutations caught")


def _is_constant(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign | ast.AnnAssign)


def _annotations(node: ast.AST) -> Iterator[ast.AST]:
    for name in ("annotation", "returns"):
        if (part := getattr(node, name, None)) is not None:
            yield part


if __name__ == "__main__":
    main()
