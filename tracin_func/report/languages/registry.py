"""Languages by the name that `--lang` takes. A new one is a file with a table of sentences, and a line here."""

from collections.abc import Callable

from tracin_func.report.languages.english import ENGLISH
from tracin_func.report.languages.traditional_chinese import TRADITIONAL_CHINESE

LANGUAGES = {"en": ENGLISH, "zh-TW": TRADITIONAL_CHINESE}
Say = Callable[..., str]


def sayer(lang: str) -> Say:
    """A function from the key of a sentence, and the values in it, to the sentence."""
    table = LANGUAGES[lang]

    def say(key: str, **values: object) -> str:
        return table[key].format(**values)

    return say
