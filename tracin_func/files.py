"""Files of any kind: read whole, replaced whole under a lock, with one clear error where that fails.

JSON numbers are kept as they were written (`Number`), so that reading and writing change no digit; keys keep their
order, and a key that occurs twice is refused, because one of its values would be lost.
"""

import contextlib
import io
import json
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import platformdirs
from filelock import FileLock, Timeout

from tracin_func.errors import InputError, OutputError

CACHE_VARIABLE = "TRACIN_FUNC_CACHE_DIR"
Json = Any
Content = str | Callable[[BinaryIO], None]  # of a file: its text, or a function that writes it
_ELSEWHERE = "Correct or move the file, or write to another folder (`metadata_dir`)."
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"(\s*:)?|[{}]')
_encode = json.JSONEncoder(ensure_ascii=False).encode


class Number(str):
    """A number of a file, as it was written there."""

    __slots__ = ()


def cache_folder() -> Path | None:
    """The folder for what can be computed again: that of TRACIN_FUNC_CACHE_DIR, else of the platform.

    It is not created here. None without a home folder: platformdirs then returns a relative path, or raises.
    """
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own).absolute()
    try:
        folder = platformdirs.user_cache_path("tracin-func")
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None


def real_path(path: str | Path) -> Path:
    """The absolute path a chain of symbolic links ends at; the last file need not exist."""
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise OutputError(f"`{path}` leads nowhere: {error}. Remove the link, or name another file.") from error


def one_form(name: str) -> str:
    """A name in one normal form: é may be one character, or (as macOS may store it) e and an accent."""
    return unicodedata.normalize("NFC", name)


def present(path: Path) -> Path:
    """`path`, or if it does not exist, the path of the same name in another normal form."""
    if str(path).isascii() or os.path.lexists(path):
        return path
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        exact = found / part
        if not os.path.lexists(exact):
            with contextlib.suppress(OSError):
                alike = [name for name in os.listdir(found) if one_form(name) == one_form(part)]
                part = next(iter(alike), part)
        found /= part
    return found


def read_object(path: Path, number: type[Number] | None = Number, remedy: str = _ELSEWHERE) -> dict[str, Json]:
    """The JSON object in a file, {} where there is no file; `number=None` makes numbers of its numbers.

    `remedy` is the last sentence of a message: the step that helps.

    Raises:
        InputError: no permission, not UTF-8, not JSON, not an object, or an object with a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(
            text, object_pairs_hook=_unique, parse_int=number, parse_float=number, parse_constant=number
        )
    except FileNotFoundError:
        return {}
    except _KeyTwiceError as error:
        key, line = _second_key(text)
        raise InputError(
            f"`{path}` has the key {key!r} a second time in one object (line {line}), so that one value would be lost. "
            f"Expected each key once. {remedy}"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"`{path}` {_unread(error)}. {remedy}") from error
    if not isinstance(document, dict):
        raise InputError(f"`{path}` holds {kind(document)}. Expected an object of pairs. {remedy}")
    return document


def _unread(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}. Expected a JSON file"
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 text (byte {error.start}). Expected JSON"
    if isinstance(error, RecursionError):
        return "is nested too deeply to be read. Expected pairs of columns"
    return f"cannot be read: {error}"  # a whole number of more digits than Python reads


def kind(value: Json) -> str:
    """The words for a JSON value in a message: `3.5`, `null`, a string, an object, an array."""
    if isinstance(value, Number):
        return f"`{value}`"
    for of, name in ((dict, "an object"), (list, "an array"), (str, "a string")):
        if isinstance(value, of):
            return name
    return f"`{_encode(value)}`"


def dumps(value: Json, newline: str = "\n") -> str:
    """The text of `json.dumps(value, indent=2, ensure_ascii=False)`, each `Number` as it was written."""
    if isinstance(value, Number):
        return str(value)
    if not isinstance(value, dict | list) or not value:
        return _encode(value)
    inner = f"{newline}  "
    if isinstance(value, dict):
        members = [f"{inner}{_encode(key)}: {dumps(member, inner)}" for key, member in value.items()]
        return f"{{{','.join(members)}{newline}}}"
    return f"[{','.join(inner + dumps(member, inner) for member in value)}{newline}]"


def require_writable(path: Path, setting: str = "metadata_dir") -> None:
    """Refuse a path that cannot be replaced: a read-only file, no file at all, a folder that cannot be created.

    `setting` is the one that names the place, for the message.

    Raises:
        OutputError: with the reason.
    """
    remedy = f"Change its permissions, or write to another folder (`{setting}`)."
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise _not_written(path, error, setting) from error
    else:
        if not stat.S_ISREG(mode):
            raise OutputError(f"`{path}` is a folder or a device. Name a file to write to.")
        # os.replace would replace a read-only file silently; root may write any of them.
        if not mode & 0o222 or not os.access(path, os.W_OK):
            raise OutputError(f"`{path}` is read-only. Expected a writable file. {remedy}")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise OutputError(f"`{folder}` is not a folder, so `{path}` cannot be written. {remedy}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"`{folder}` is not writable, so `{path}` cannot be written. {remedy}")


@contextlib.contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Hold the lock of the file at `path`, and create its folder; other processes that merge into it wait.

    Raises:
        OutputError: another process held the lock for `timeout` seconds, or the folder refuses the lock file.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=timeout)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise OutputError(
            f"`{path}` has been locked by another process for more than {timeout:g} s; nothing was changed. Wait for "
            "the other run, or stop it, and try again."
        ) from error
    except (OSError, NotImplementedError) as error:
        raise _not_written(path, error) from error
    try:
        yield
    finally:
        lock.release()


def replace(path: Path, writes: Sequence[tuple[Path, Content]], setting: str = "metadata_dir") -> None:
    """Replace files of the folder of `path`, in order; call it inside `locked(path)`.

    Every content is on the disk in full before the first file is replaced: a full disk changes no file.

    Args:
        path: the file whose lock is held; temporary files are named after it.
        writes: files and their new contents; a file may occur again.
        setting: the one that names the place, for the message.

    Raises:
        OutputError: some or all were not replaced; each file has its old or its new content.
    """
    temporary = [path.with_name(f".{path.name}.{step}.tmp") for step in range(max(3, len(writes)))]
    try:
        for file, (target, content) in zip(temporary, writes, strict=False):
            _stage(file, target, content)
        for file, (target, _) in zip(temporary, writes, strict=False):
            os.replace(file, target)
            _sync_folder(path.parent)
    except OSError as error:
        raise _not_written(path, error, setting) from error
    finally:
        for file in temporary:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)


def read_lines(path: Path) -> list[str]:
    """The lines that are neither blank nor a comment."""
    lines = [line.strip() for line in read_text(path).split("\n")]
    return [line for line in lines if line and not line.startswith("#")]


def read_text(path: Path) -> str:
    with opened_text(path) as file:
        return file.read()


@contextlib.contextmanager
def opened_text(path: Path) -> Iterator[TextIO]:
    """A text file in UTF-8, open in the block, in which it is only read.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        with path.open("rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig") as file:
            try:
                yield file
            except UnicodeDecodeError as error:
                read = raw.tell() - len(error.object) if raw.seekable() else 0
                raise InputError(f"{path} is not UTF-8 text (byte {read + error.start}). Save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Expected a text file.") from None


class _KeyTwiceError(Exception):
    """An object of the file has a key twice."""


def _unique(members: list[tuple[str, Json]]) -> dict[str, Json]:
    unique = dict(members)
    if len(unique) != len(members):
        raise _KeyTwiceError
    return unique


def _second_key(text: str) -> tuple[str, int]:
    """The first key that occurs twice in one object of a JSON text, and the line of its second occurrence."""
    seen: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        if token[0] == "{":
            seen.append(set())
        elif token[0] == "}":
            seen.pop()
        elif token[1]:
            key: str = json.loads(token[0][: -len(token[1])])
            if key in seen[-1]:
                return key, text.count("\n", 0, token.start()) + 1
            seen[-1].add(key)
    raise AssertionError("called for a text without a repeated key")


def _stage(file: Path, target: Path, content: Content) -> None:
    """Write and flush a temporary file with the permissions, and where possible the owner, of its target."""
    file.unlink(missing_ok=True)  # left by a killed process that held this lock
    with open(file, "xb") as stream:
        if isinstance(content, str):
            # A lone surrogate has no UTF-8; its escape is what a JSON string may hold.
            stream.write(content.encode("utf-8", errors="backslashreplace"))
        else:
            content(stream)
        stream.flush()
        with contextlib.suppress(FileNotFoundError):
            old = target.stat()
            with contextlib.suppress(PermissionError, AttributeError):  # no chown on Windows
                os.chown(file, old.st_uid, old.st_gid)
            os.chmod(file, stat.S_IMODE(old.st_mode))
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_written(path: Path, error: Exception, setting: str = "metadata_dir") -> OutputError:
    reason = getattr(error, "strerror", None) or error
    return OutputError(
        f"`{path}` could not be written: {reason}. Its former content is unchanged. Check free space and permissions "
        f"of the folder, or write to another one (`{setting}`)."
    )
