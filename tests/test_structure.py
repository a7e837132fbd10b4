"""The shape of the code: imports point one way, rooms are small, public names are listed, help loads no torch."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import tracin_func

PACKAGE = Path(tracin_func.__file__).parent

# From the bottom up: a module imports from its own room and from rooms before it.
ROOMS = (
    *("errors", "files", "task", "losses", "gradients", "results"),
    *("scoring", "training", "evaluation", "sources", "report", "cli", "__main__"),
)
# The same for the folders inside a room; modules that lie in the room itself come first.
FOLDERS = {
    "gradients": ("projection", "store", "representations", "engines"),
    "report": ("terminal", "languages", "content", "html", "markdown"),
}

# What a module or folder may not import, although the order of rooms allows it, and why.
FORBIDDEN = {
    "gradients": (
        ("task.task", "task.pairs", "task.pair_table", "task.pair_reader", "task.loss", "losses"),
        "it knows units only",
    ),
    "gradients.store": (("gradients.model", "gradients.protocol"), "it keeps rows, whatever made them"),
    "losses": (("task.task", "task.checkpoints"), "it sees scores and targets only"),
    **{
        f"scoring.{name}": (("gradients.engines",), "only plan, walk and stored_rows know engines")
        for name in (
            "accuracy",
            "api",
            "combinations",
            "forecast",
            "influence",
            "score",
            "self_influence",
            "top_k",
            "units",
        )
    },
    **{
        f"scoring.{name}": (
            ("gradients.engines", "gradients.representations", "gradients.batches", "scoring.units", "scoring.plan"),
            "it checks them",
        )
        for name in ("verify", "plain")
    },
}

ROOT_ENTRIES = 15
MODULE_LINES = 350


def modules() -> dict[str, Path]:
    """Every module of the package with code of its own."""
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in paths}


MODULES = modules()


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tracin_func"):
            base = node.module.removeprefix("tracin_func").removeprefix(".")
            names = [f"{base}.{alias.name}".removeprefix(".") for alias in node.names]
            found |= {name if name in MODULES else base for name in names}
        elif isinstance(node, ast.Import):
            found |= {name.name.removeprefix("tracin_func.") for name in node.names if name.name in MODULES}
    return found


IMPORTS = {module: imported(path) for module, path in MODULES.items()}


def inside(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def upward() -> Iterator[str]:
    """Every import of a later room, or of a later folder of the same room."""
    for module, known in IMPORTS.items():
        for other in sorted(known):
            room, its_room = module.partition(".")[0], other.partition(".")[0]
            if ROOMS.index(its_room) > ROOMS.index(room):
                yield f"{module} imports {other}: {its_room} comes after {room}"
            elif room == its_room and room in FOLDERS:
                own, its = folder(module), folder(other)
                if its > own:
                    yield f"{module} imports {other}: within {room}, that folder comes later"


def folder(module: str) -> int:
    """Place of a module's folder within its room; 0 in the room itself."""
    room, _, rest = module.partition(".")
    name, _, inner = rest.partition(".")
    return 1 + FOLDERS[room].index(name) if inner else 0


def circles() -> Iterator[str]:
    """Every circle of imports, once for the module that closes it."""
    state: dict[str, int] = {}
    way: list[str] = []

    def visit(module: str) -> Iterator[str]:
        if state.get(module) == 1:
            yield " -> ".join([*way[way.index(module) :], module])
        if module in state or module not in IMPORTS:
            return
        state[module] = 1
        way.append(module)
        for other in sorted(IMPORTS[module]):
            yield from visit(other)
        way.pop()
        state[module] = 2

    for module in IMPORTS:
        yield from visit(module)


def forbidden() -> Iterator[str]:
    """Every import that the rules above exclude, and of typer outside the command line."""
    for place, (others, reason) in FORBIDDEN.items():
        for module in IMPORTS:
            for other in sorted(IMPORTS[module]) if inside(module, place) else ():
                if any(inside(other, each) for each in others):
                    yield f"{module} imports {other}: {reason}"
    for module, path in MODULES.items():
        if not inside(module, "cli") and "typer" in path.read_text(encoding="utf-8"):
            yield f"{module} names typer, which is of the command line"


def crowded() -> Iterator[str]:
    """Rooms with too much in them: long modules, two files of one stem in a folder, a full root."""
    for module, path in MODULES.items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MODULE_LINES:
            yield f"{module} has {lines} lines; a module has {MODULE_LINES} at most"
    for place in [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__")]:
        stems = Counter(path.stem for path in place.iterdir() if path.name != "__pycache__")
        for stem, count in stems.items():
            if count > 1:
                yield f"{place.relative_to(PACKAGE)}/ has {count} entries called {stem}"
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    if len(entries) > ROOT_ENTRIES:
        yield f"the package has {len(entries)} entries at its root; {ROOT_ENTRIES} at most"


def test_rooms_are_in_order() -> None:
    """All violations at once."""
    assert not [*upward(), *circles(), *forbidden(), *crowded()]


def test_every_room_is_known() -> None:
    assert {module.partition(".")[0] for module in MODULES} <= set(ROOMS)
    for room, folders in FOLDERS.items():
        there = {module.split(".")[1] for module in MODULES if module.startswith(f"{room}.") and module.count(".") > 1}
        assert there <= set(folders)


def constants() -> Iterator[tuple[str, str, str]]:
    """Name, value and module of every constant that other modules may import."""
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                values = node.value.elts if isinstance(node.value, ast.Tuple) else []
                for place, name in enumerate(names):
                    own = values[place] if len(values) == len(names) > 1 else node.value
                    if isinstance(name, ast.Name) and name.id.isupper() and not name.id.startswith("_"):
                        yield name.id, ast.unparse(own), module


def test_a_constant_has_one_value() -> None:
    """So that its name means the same wherever it is read."""
    values: dict[str, dict[str, list[str]]] = {}
    for name, value, module in constants():
        values.setdefault(name, {}).setdefault(value, []).append(module)
    assert {name: found for name, found in values.items() if len(found) > 1} == {}


def test_no_test_module_imports_another() -> None:
    tests = Path(__file__).parent
    for path in tests.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests"):
                assert (node.module or "").startswith("tests.support"), path


def test_public_names_are_there_and_lead_to_their_modules() -> None:
    for name in tracin_func.__all__:
        assert getattr(tracin_func, name).__name__.removeprefix("tracin_func.") == name
    assert set(tracin_func.__all__) <= set(dir(tracin_func))
    with pytest.raises(AttributeError, match="no attribute 'influences'"):
        _ = tracin_func.influences


def test_public_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert sorted(map(str, seen)) == tracin_func.__all__
    assert seen.pop("sources") == "tracin_func"
    for name, module in seen.items():
        assert getattr(tracin_func, str(name)).__module__ == module


def test_help_does_not_load_torch() -> None:
    code = (
        "import sys, contextlib, io\n"
        "from tracin_func.cli.app import app\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    app(['influence', '--help'], standalone_mode=False)\n"
        "assert '--num-test' in out.getvalue(), out.getvalue()\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
