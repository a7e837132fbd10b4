"""The shape of the code: imports point one way, public names are listed, the command line starts light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tracin_func

PACKAGE = Path(tracin_func.__file__).parent

# From the bottom up; a module may import modules of lower layers, and of its own where `PEERS` allows it.
LAYERS = (
    ("errors", "columns", "views", "verification", "queries.ordered", "projection.randomness"),
    ("pairs", "items", "devices", "distributed", "precision", "provenance", "checkpoints"),
    ("projection.specification", "projection.shapes"),
    ("losses", "slots", "metric", "optimizer", "coupling", "sinks.json_file"),
    ("store.files", "store.encoding"),
    ("store.digest", "store.manifest", "store.occupancy"),
    ("store.layout",),
    ("store.gradient_store", "store.inspection"),
    ("task", "scorer", "terms", "sinks.origins", "queries.pair_blocks", "queries.extremes", "queries.screen"),
    ("gradients", "compute", "sinks.merge", "sinks.table_file", "sinks.reading", "queries.slopes"),
    ("gram", "streamed", "records"),
    ("queries.parquet_pairs", "queries.strongest", "queries.self_scores", "sinks.pair_stream"),
    ("rows", "factors", "units", "budget"),
    ("projection.dense", "projection.sparse"),
    ("projection.kronecker",),
    ("projection.projector", "engines.rowwise"),
    ("projection.gradients",),
    ("engines.streaming", "engines.ghost.rules", "engines.ghost.order"),
    ("engines.vmapped", "engines.loop", "engines.ghost.capture"),
    ("engines.ghost.plan",),
    ("engines.ghost.engine",),
    ("engines.choose", "engines.projecting", "spot"),
    ("prepare", "engines.blockwise"),
    ("storing",),
    ("pair_tables",),
    ("trace", "results", "queried"),
    ("evaluation", "filling"),
    ("scoring", "outlook"),
    ("querying",),
    ("verify",),
    ("selftest",),
    ("api", "sources.wav", "sources.frontend", "sources.ranker", "sources.synthesis", "sources.drawing"),
    ("sources.tree", "sources.training", "sources.loading", "sources.pair_files"),
    ("sources.tones", "sources.demo"),
    ("cli.options", "cli.faults", "cli.values", "cli.settings", "cli.tables"),
    ("cli.progress", "cli.view_tables", "cli.health", "cli.assess", "cli.dry_run"),
    ("cli.report", "cli.tasks", "cli.about"),
    ("cli.output", "cli.repeat"),
    ("cli.shares", "cli.stored", "cli.query"),
    ("cli.computing",),
    ("cli.job", "cli.shown"),
    (
        "cli.self_influence",
        "cli.influence",
        "cli.show",
        "cli.demo",
        "cli.doctor",
        "cli.gradients",
        "cli.merge",
        "cli.store",
    ),
    ("cli.app",),
    ("__main__",),
)
LAYER = {module: layer for layer, modules in enumerate(LAYERS) for module in modules}

# What a room may not know, whatever its layer (DESIGN: trace, then score; engine × unit).
FORBIDDEN = {
    "engines": ("pairs", "losses", "task", "terms", "units"),
    "rows": ("pairs", "losses", "task"),
    "gram": ("pairs", "losses", "task"),
    "gradients": ("pairs", "losses", "task"),
    "store": ("pairs", "losses", "task", "scorer", "engines", "gradients"),
    "scoring": ("engines",),
    "terms": ("engines", "gradients"),
}


def modules() -> dict[str, Path]:
    """Every module of the package with code of its own."""
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in paths}


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tracin_func"):
            base = node.module.removeprefix("tracin_func").removeprefix(".")
            names = [f"{base}.{alias.name}".removeprefix(".") for alias in node.names]
            found |= {name if name in LAYER else base for name in names}
    return found


def test_every_module_has_a_layer() -> None:
    assert set(modules()) == set(LAYER)


@pytest.mark.parametrize("module", sorted(LAYER))
def test_imports_point_down(module: str) -> None:
    for other in imported(modules()[module]):
        assert LAYER[other] < LAYER[module], f"{module} imports {other}, which is not below it"


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_rooms_do_not_know_what_they_must_not(room: str) -> None:
    for module, path in modules().items():
        if module == room or module.startswith(f"{room}."):
            known = {other.partition(".")[0] for other in imported(path)}
            assert not known & set(FORBIDDEN[room]), module


def test_only_the_command_line_imports_typer() -> None:
    for module, path in modules().items():
        if not module.startswith("cli."):
            assert "typer" not in path.read_text(encoding="utf-8"), module


def test_only_trace_knows_engines_and_checkpoints() -> None:
    """What else walks through checkpoints takes them from `trace.visited`."""
    both = [
        module
        for module, path in modules().items()
        if "checkpoints" in (known := imported(path)) and ("prepare" in known or any(map(of_engines, known)))
    ]
    assert both == ["trace"]


def test_verification_knows_no_engine_but_the_loop() -> None:
    known = imported(modules()["verify"])
    assert {module for module in known if of_engines(module)} == {"engines.loop"}
    assert not known & {"prepare", "gram", "rows", "streamed", "spot"}


def of_engines(module: str) -> bool:
    return module.startswith("engines.")


def test_public_names_are_there_and_lead_to_their_modules() -> None:
    for name in tracin_func.__all__:
        assert getattr(tracin_func, name).__name__ == name
    assert set(tracin_func.__all__) <= set(dir(tracin_func))
    with pytest.raises(AttributeError, match="no attribute 'influences'"):
        _ = tracin_func.influences


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
