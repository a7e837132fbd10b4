"""How many small faults in the package the tests catch: one at a time, chosen by seed, each in a copy of the tree.

    python -m tests.mutations --count 60 --seed 0

A mutation swaps an operator, comparison, constant or condition in a module of scoring, gradients, losses or files;
constants of a module (sizes, tolerances) are left alone. It is caught when a test fails that passes without it. The
tests of the module's own file and room run first, those of processes and of the README last. Survivors are listed with
their line, to be looked at: some change nothing that can be seen.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("scoring", "gradients/engines", "gradients/representations", "losses", "results/files", "files.py")
OF_TEXT = ("tests/test_structure.py", "tests/test_words.py")
FIRST = ("tests/scoring", "tests/results", "tests/losses", "tests/gradients")
LAST = ("tests/cli/test_processes.py", "tests/test_readme.py", "tests/test_docs.py")
OUT_OF_TIME = "ran out of time"
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
    """The test files to run for a module, in turn: its own file and its room, then all others."""
    room = Path("tests", *path.parts[1:-1])
    while not (ROOT / room).is_dir():
        room = room.parent
    own = room / f"test_{path.stem}.py"

    def late(file: Path) -> int:
        place = next((place for place, start in enumerate(FIRST) if str(file).startswith(start)), len(FIRST))
        return place + str(file).startswith(LAST)

    files = sorted(file.relative_to(ROOT) for file in (ROOT / "tests").rglob("test_*.py"))
    files = [file for file in sorted(files, key=late) if str(file) not in OF_TEXT]
    near = [file for file in files if room != Path("tests") and file.is_relative_to(room)]
    steps = (
        [own] * (ROOT / own).is_file(),
        [file for file in near if file != own],
        [file for file in files if file not in near],
    )
    return [[str(file) for file in step] for step in steps if step]


def caught(mutation: Mutation, timeout: float, fail_anyway: set[str]) -> str | None:
    """The first test that fails and passes without the mutation; None where there is none.

    Tests that fail without the mutation join `fail_anyway` and are left out from then on. The copy without it is
    written from the syntax tree too, so that tests of comments and line numbers catch nothing.
    """
    source = (ROOT / mutation.path).read_text(encoding="utf-8")
    changed, unchanged = mutated(source, mutation.number), ast.unparse(ast.parse(source))
    for tests in tests_of(mutation.path):
        while (test := first_failure(mutation.path, changed, tests, timeout, fail_anyway)) is not None:
            if "::" not in test or first_failure(mutation.path, unchanged, [test], timeout) != test:
                return test
            fail_anyway.add(test)
    return None


def first_failure(
    path: Path, source: str, tests: list[str], timeout: float, without: Collection[str] = ()
) -> str | None:
    """The first of the tests that fails in a copy of the tree in which the module is `source`; None where all pass."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".*_cache"))
        (copy / path).write_text(source, "utf-8")
        cache = Path(tempfile.gettempdir()) / "tracin-func-mutations"
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "--tb=no", "-o", f"cache_dir={cache}", *tests]
        for test in without:
            command += ["--deselect", test]
        environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            run = subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return OUT_OF_TIME
    if not run.returncode or run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        return None
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" ", 1)[1].split(" - ")[0] if failed else f"exit code {run.returncode}"


def main() -> None:
    """Print a line per mutation, and at the end how many were caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="1/1", metavar="I/N", help="only every N-th, from the I-th")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds of tests; then not counted as caught")
    given = parser.parse_args()
    part, parts = map(int, given.part.split("/"))
    mine = chosen(given.count, given.seed)[part - 1 :: parts]
    survivors, fail_anyway = 0, set[str]()
    for mutation in mine:
        by = caught(mutation, given.timeout, fail_anyway)
        survivors += by in (None, OUT_OF_TIME)
        before = (ROOT / mutation.path).read_text(encoding="utf-8").splitlines()[mutation.line - 1].strip()
        print(f"{mutation.path}:{mutation.line} {mutation.what}: {before}\n    {by or 'SURVIVED'}", flush=True)
    print(f"{len(mine) - survivors} of {len(mine)} mutations caught")
    print("tests that fail without a mutation:", ", ".join(sorted(fail_anyway)) or "none")


def _is_constant(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign | ast.AnnAssign)


def _annotations(node: ast.AST) -> Iterator[ast.AST]:
    for name in ("annotation", "returns"):
        if (part := getattr(node, name, None)) is not None:
            yield part


if __name__ == "__main__":
    main()
