"""The user's own classes and factories, named FILE.py:Name or package.module:Name. This runs their code."""

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from tracin_func.errors import InputError, UsageError
from tracin_func.gradients.model import Scorer
from tracin_func.sources.options import setting
from tracin_func.task.task import Task

# The user's own code may raise anything, and may call sys.exit().
_ANYTHING = (Exception, SystemExit)


def load_model(spec: str, arguments: Mapping[str, Any]) -> nn.Module:
    """An instance of the module class `spec`, made with `arguments`.

    Raises:
        UsageError: `spec` is not of the form FILE.py:Class.
        InputError: the file or class is missing, its import or construction fails, or it is not an nn.Module.
    """
    factory, where = load_object(spec, "model"), setting("model", spec)
    try:
        with _own_words(Path(spec)):
            model = factory(**arguments)
    except _ANYTHING as error:
        try:
            parameters = str(inspect.signature(factory))
        except ValueError:
            parameters = "unknown"
        raise InputError(
            f"{where} failed: {_said(error)}. It was called as "
            f"{spec.rpartition(':')[2]}({', '.join(f'{k}={v!r}' for k, v in arguments.items())}); its parameters are "
            f"{parameters}. Set them with `model_arg`, as NAME=VALUE."
        ) from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{where} returned a {type(model).__name__}. It should return a torch.nn.Module.")
    return model


def load_task(spec: str) -> Task:
    """The Task that the factory `spec` returns.

    Raises:
        UsageError: `spec` is not of the form FILE.py:factory.
        InputError: the file or factory is missing, fails, or returns something else.
    """
    factory, where = load_object(spec, "task"), setting("task", spec)
    try:
        with _own_words(Path(spec)):
            task = factory()
    except (InputError, UsageError):
        raise
    except _ANYTHING as error:
        raise InputError(f"{where} failed: {_said(error)}. It is called without arguments.") from error
    if not isinstance(task, Task):
        raise InputError(f"{where} returned a {type(task).__name__}. It should return a tracin_func.Task.")
    return task


def load_object(spec: str, option: str) -> Callable[..., Any]:
    """The callable that `spec`, the value of an option, names."""
    place, _, name = spec.rpartition(":")
    if not place or not name.isidentifier():
        raise UsageError(f"`{option}` should be FILE.py:Name or package.module:Name. Got {spec!r}.")
    module = _import_file(Path(place), option) if place.endswith(".py") else _import_module(place, option)
    found = getattr(module, name, None)
    if not callable(found):
        own = [key for key, value in vars(module).items() if inspect.isclass(value) or inspect.isfunction(value)]
        own = [key for key in own if getattr(vars(module)[key], "__module__", None) == module.__name__]
        raise InputError(f"`{option}`: {name!r} not found in {place}. Available: {', '.join(own) or 'nothing'}.")
    return found  # type: ignore[no-any-return]


def require_scorer(where: str, module: nn.Module, joint: bool) -> None:
    """Check the module that was read from `where`.

    Raises:
        InputError: it cannot be a scorer.
    """
    try:
        Scorer(module, joint=joint)
    except UsageError as error:
        raise InputError(f"{where}: {error}") from error


def parse_arguments(pairs: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE words as keyword arguments; a value may be a Python literal.

    Raises:
        UsageError: a word does not have this form.
    """
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name.isidentifier():
            raise UsageError(f"`model_arg` should be NAME=VALUE. Got {pair!r}.")
        try:
            arguments[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            arguments[name] = value
    return arguments


def _import_file(path: Path, option: str) -> ModuleType:
    """The module of a file, imported as by `python FILE`: its folder stays on sys.path for later imports."""
    if not path.is_file():
        raise InputError(f"`{option}`: file not found: {path}. It should be FILE.py:Name.")
    _put_on_path(path.parent)
    taken = getattr(sys.modules.get(path.stem), "__file__", None)
    free = path.stem not in sys.modules or (taken is not None and Path(taken).resolve() == path.resolve())
    name = path.stem if free else f"{path.stem}_of_{path.parent.resolve().name}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses and pickling look their module up by name
    try:
        with _own_words(path):
            specification.loader.exec_module(module)
    except _ANYTHING as error:
        sys.modules.pop(name, None)
        raise InputError(f"`{option}`: {path} cannot be imported: {_said(error)}.{_hint(error, path)}") from error
    return module


def _import_module(name: str, option: str) -> ModuleType:
    _put_on_path(Path.cwd())  # as `python -m` does
    try:
        with _own_words(Path(name)):
            return importlib.import_module(name)
    except _ANYTHING as error:
        raise InputError(f"`{option}`: module {name} cannot be imported: {_said(error)}.{_hint(error)}") from error


def _put_on_path(folder: Path) -> None:
    if (text := str(folder.resolve())) not in sys.path:
        sys.path.insert(0, text)


@contextmanager
def _own_words(path: Path) -> Iterator[None]:
    """In the block `sys.argv` is that of the user's code, which may parse it."""
    before = sys.argv
    sys.argv = [str(path)]
    try:
        yield
    finally:
        sys.argv = before


def _hint(error: BaseException, path: Path | None = None) -> str:
    """What to do about a failed import, if its cause is known."""
    if isinstance(error, SystemExit):
        return (
            ' It ends the process on import. Move code that parses the command line under if __name__ == "__main__":.'
        )
    if path is None or not isinstance(error, ImportError) or "relative import" not in str(error):
        return ""
    top = path.resolve().parent
    names = [path.stem]
    while (top / "__init__.py").is_file():
        names.insert(0, top.name)
        top = top.parent
    if len(names) == 1:
        return " Import its neighbours by name: `from layers import ...` instead of `from .layers import ...`."
    return f" It is part of a package. Run from {top}, with {'.'.join(names)}:Name instead of the file."


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
