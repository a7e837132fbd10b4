"""Command lines of older scripts, which named what to compute, and a file, by options instead of by a command."""

from collections.abc import Sequence
from typing import Any

from typer.core import TyperGroup

from tracin_func.cli.errors import say

OLDER_SELF, OLDER_INFLUENCE = "--compute-self-influence", "--compute-influence"
OLDER_FILE, OLDER_BOTH = "--metadata-file", "--consider-both-samples"  # of the script that listed exclusions
_OF_TESTS = ("--num-test-samples", "--num-test")  # the script took them for self-influence too


class Commands(TyperGroup):
    """The commands; without one, the options of the older script choose it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, of_exclude(with_command(args)))


def with_command(words: Sequence[str]) -> list[str]:
    """`words` with the command that the older options ask for; both together are one pass."""
    asked = [word for word in words if word in (OLDER_SELF, OLDER_INFLUENCE)]
    if not asked or not words[0].startswith("-"):
        return list(words)
    rest = [word for word in words if word not in asked]
    if OLDER_INFLUENCE in asked:
        return ["influence", *rest, *(["--with-self"] if OLDER_SELF in asked else [])]
    return ["self", *_without_tests(rest)]


def _without_tests(words: Sequence[str]) -> list[str]:
    kept, skipped = [], False
    for word in words:
        if skipped:  # the value of the option before
            skipped = False
        elif word.partition("=")[0] in _OF_TESTS:
            say(f"note: {word.partition('=')[0]} has no effect on self-influence.")
            skipped = "=" not in word
        else:
            kept.append(word)
    return kept


def of_exclude(words: Sequence[str]) -> list[str]:
    """`words` of `exclude` with its file as an argument, and both samples of a pair as its mode."""
    if words[:1] != ["exclude"]:
        return list(words)
    found = []
    for word in words:
        name, given, value = word.partition("=")
        if name == OLDER_FILE:
            found += [value] if given else []
        else:
            found += ["--mode", "full_pair"] if word == OLDER_BOTH else [word]
    return found
