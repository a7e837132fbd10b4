"""What `doctor` finds out about a machine, and how it is printed."""

import json
import os
import shutil
import tempfile
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from tracin_func.errors import NumericalError
from tracin_func.files import CACHE_VARIABLE
from tracin_func.gradients.device import resolve_device, versions
from tracin_func.gradients.engines.registry import engine_names
from tracin_func.results.names import counted
from tracin_func.results.verification import TOLERANCE
from tracin_func.scoring.selftest import Outcome, selftest
from tracin_func.sources.demo.cache import cache_dir

PIPE_WIDTH = 100  # where stdout is no terminal
LEAST_WIDTH = 40
VARIABLE_PREFIX = "TRACIN_FUNC_"

# What can be installed besides, the extra that brings it, and what it is for.
OPTIONAL_PACKAGES = {
    "pandas": ("pandas", "to_pandas of results"),
    "captum": ("peers", "comparisons in benchmarks/"),
    "dattri": ("peers", "comparisons in benchmarks/"),
}


@dataclass(frozen=True)
class Health:
    """All that was found: each of `devices` and `packages` in words by name, `auto` the device a plain run takes.

    `cache` is None without a home folder; `environment` are the variables TRACIN_FUNC_* that are set, `variables` the
    names of those that options read.
    """

    versions: dict[str, str]
    devices: dict[str, str]
    auto: str
    packages: dict[str, str | None]
    cache: Path | None
    cache_writable: bool
    environment: dict[str, str]
    variables: Collection[str]
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> list[Outcome]:
        """What did not pass the self-test."""
        return [outcome for outcome in self.outcomes if not outcome.passed]

    def json(self) -> str:
        """As one document; a deviation that is no number is null."""
        tested = [outcome.describe() for outcome in self.outcomes]
        for outcome in tested:
            if outcome["deviation"] != outcome["deviation"]:
                outcome["deviation"] = None
        document = {
            "passed": not self.failed,
            "versions": self.versions,
            "devices": self.devices,
            "auto": self.auto,
            "packages": self.packages,
            "cache": {"folder": None if self.cache is None else str(self.cache), "writable": self.cache_writable},
            "environment": self.environment,
            "selftest": {"tolerance": TOLERANCE, "outcomes": tested},
        }
        return json.dumps(document, indent=2, ensure_ascii=False)

    def text(self, width: int | None = None) -> str:
        """For reading, no line wider than `width`, by default the terminal's."""
        width = max(LEAST_WIDTH, width or shutil.get_terminal_size((PIPE_WIDTH, 24)).columns)
        shown = [name for name, found in self.packages.items() if found or OPTIONAL_PACKAGES[name][0] != "peers"]
        packages = {name: self._package(name) for name in shown}
        environment = {name: self._variable(name) for name in self.environment}
        sections = [
            _section("Versions", self.versions, width),
            _section("Devices", {**self.devices, "auto": f"uses {self.auto}"}, width),
            _section("Optional packages", packages, width),
            _section("Cache of the embedded example", {"folder": self._cache()}, width),
            _section("Environment", environment or {"": f"no variable {VARIABLE_PREFIX}* is set"}, width),
            _tested(self.outcomes, width),
            self._verdict(),
        ]
        return "\n\n".join(sections)

    def _verdict(self) -> str:
        if self.failed:
            return f"FAILED: {counted(len(self.failed), 'engine')} computed wrong scores."
        return f"passed: all {counted(len(self.outcomes), 'self-test')} agree with the reference."

    def _package(self, name: str) -> str:
        found, (extra, purpose) = self.packages[name], OPTIONAL_PACKAGES[name]
        state = found or f'not installed: pip install "tracin-func[{extra}]"'
        return f"{state}; for {purpose}"

    def _variable(self, name: str) -> str:
        known = name in {*self.variables, CACHE_VARIABLE}
        return self.environment[name] + ("" if known else " (not a variable of any option: is it misspelt?)")

    def _cache(self) -> str:
        if self.cache_writable:
            return f"{self.cache} (writable)"
        what = "no home folder" if self.cache is None else f"{self.cache} is NOT writable"
        return f"{what}; a folder for temporary files is used instead. {CACHE_VARIABLE} sets another."


def examine(variables: Collection[str] = ()) -> Health:
    """Look at this machine and test the engines; nothing stays on the disk. `variables`: those that options read."""
    cache = cache_dir()
    devices = _usable()
    return Health(
        versions=versions(),
        devices=_devices(),
        auto=str(resolve_device(None)),
        packages={name: _version(name) for name in OPTIONAL_PACKAGES},
        cache=cache,
        cache_writable=cache is not None and _is_writable(cache),
        environment={name: os.environ[name] for name in sorted(os.environ) if name.startswith(VARIABLE_PREFIX)},
        variables=variables,
        outcomes=tuple(selftest(reversed(engine_names()[1:]), devices)),
    )


def require_health(found: Health) -> None:
    """
    Raises:
        NumericalError: an engine failed the self-test; the message names each.
    """
    if found.failed:
        names = ", ".join(f"{outcome.engine} on {outcome.device}" for outcome in found.failed)
        raise NumericalError(
            f"the self-test FAILED: {names}. Scores from there would be wrong. Use another --engine or --device, and "
            "please report it, with the output of `tracin-func doctor --json`."
        )


def _usable() -> list[str]:
    """The devices that torch can use here."""
    cards = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *cards, *(["mps"] if torch.backends.mps.is_available() else [])]


def _devices() -> dict[str, str]:
    """Every kind of device in words, missing ones too."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory()
    found = {
        "cpu": f"{counted(cores, 'core')}, torch uses {counted(torch.get_num_threads(), 'thread')}; "
        f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB of memory free"
    }
    for name in _usable():
        if name.startswith("cuda"):
            free, total = torch.cuda.mem_get_info(torch.device(name))
            found[name] = f"{torch.cuda.get_device_name(name)}; {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if not torch.cuda.is_available():
        built = torch.version.cuda
        found["cuda"] = f"none found (torch is built for CUDA {built})" if built else "none (this torch has no CUDA)"
    found["mps"] = "available" if torch.backends.mps.is_available() else "none"
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _is_writable(folder: Path) -> bool:
    """Whether a file can be made in it, or in the folder it would be made in."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):  # by trying: os.access does not know of read-only file systems
            return True
    except OSError:
        return False


# Words


def _section(heading: str, facts: dict[str, str], width: int) -> str:
    """A heading, and each fact beside its name; a longer one continues below itself."""
    margin = max(map(len, facts)) + 4
    lines = [heading]
    for name, fact in facts.items():
        if margin > width // 2:  # a long name has a line of its own
            lines += _wrapped(name, 2, width) + _wrapped(fact, 4, width)
        else:
            first, *rest = _wrapped(fact, margin, width) or [""]
            lines += [f"  {name}".ljust(margin) + first[margin:] if name else "  " + first.lstrip(), *rest]
    return "\n".join(lines)


def _tested(outcomes: Sequence[Outcome], width: int) -> str:
    """One line per engine and device, then errors and the notices that a run would print."""
    heading = f"Self-test: scores of a small net against a float64 loop on the CPU, tolerance {TOLERANCE:.0e}"
    lines = [*_wrapped(heading, 0, width), f"  {'device':<8}{'engine':<8}{'deviation':>10}"]
    for each in outcomes:
        deviation = "-" if each.deviation is None else f"{each.deviation:.1e}"
        verdict = "ok" if each.passed else "FAILED"
        lines.append(f"  {each.device:<8}{each.engine:<8}{deviation:>10}  {verdict}")
        lines += _wrapped(each.fault or "", 4, width)
    notices = dict.fromkeys(f"{each.device}, {each.engine}: {notice}" for each in outcomes for notice in each.notices)
    for notice in notices:
        lines += _wrapped(notice, 2, width)
    return "\n".join(lines)


def _wrapped(text: str, indent: int, width: int) -> list[str]:
    space = " " * indent
    return textwrap.wrap(text, width, initial_indent=space, subsequent_indent=space, break_on_hyphens=False)
