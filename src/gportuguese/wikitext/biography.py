"""The first sentence of a biography on the Italian Wikipedia, which {{Bio}} writes from its arguments.

The rules are those of `Modulo:Bio`, as described in the documentation of the template
(https://it.wikipedia.org/wiki/Template:Bio).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# "uno" before these: uno storico, uno zoologo, uno psicologo
_IMPURE = re.compile(r"s[^aeiou\W]|z|gn|p[sn]|[xy]|i[aeou]")
_PRONUNCIATION = re.compile(r"\(?(?:pronuncia|ipa\b)", re.IGNORECASE)  # in signs that leave nothing
_MARKS = ",;:.)"


def first_sentence(values: Mapping[str, str]) -> str:
    """The sentence that {{Bio}} shows; empty without a name.

    >>> first_sentence({"nome": "Ada", "cognome": "Neri", "sesso": "F", "luogonascita": "Bari",
    ...     "annonascita": "1901", "annomorte": "1980", "attività": "attrice", "attività2": "esperta d'arte",
    ...     "nazionalità": "italiana"})
    "'''Ada Neri''' (Bari, 1901 – 1980) è stata un'attrice ed esperta d'arte italiana."
    """

    def get(name: str) -> str:
        return values.get(name, "")

    name = " ".join(filter(None, (get("nome"), get("cognome"))))
    if get("cognomeprima"):
        name = " ".join(filter(None, (get("cognome"), get("nome"))))
    if not name:
        return ""
    text = _joined(get("titolo"), f"'''{name}'''")
    if not _PRONUNCIATION.match(get("postcognome")):
        text = _joined(text, get("postcognome"))
    if after := get("postcognomevirgola"):
        text += f", {after}"
    if dates := _dates(values):
        text += f" ({dates})"
    is_dead, is_woman = bool(get("annomorte")), get("sesso").upper() == "F"
    if end := get("fineincipit"):
        text = _joined(text, end)
        return text if len(end) < 3 else _ended(text, values)  # "e" stands before the next {{Bio}}
    work = _work(values)
    if not work and not get("nazionalità"):
        return _ended(_joined(text, get("postnazionalità")), values)
    ending = "a" if is_woman else "o"
    verb = f"è stat{ending}" if is_dead else "è"
    text = _joined(text, get("preattività") or f"{verb} {_article(work, is_woman)}")
    text = (
        text + work if text.endswith(("'", "’")) and not get("preattività") else _joined(text, work)
    )
    text = _joined(text, get("nazionalità"))
    if other := get("nazionalitànaturalizzato"):
        text += f" naturalizzat{ending} {other}"
    return _ended(_joined(text, get("postnazionalità")), values)


def _dates(values: Mapping[str, str]) -> str:
    """Places and dates of birth and death, after a name in another language."""
    first, last = (
        ", ".join(
            filter(
                None,
                (
                    values.get(f"luogo{event}alt") or values.get(f"luogo{event}", ""),
                    _joined(
                        values.get(f"giornomese{event}", ""), _year(values.get(f"anno{event}", ""))
                    ),
                ),
            )
        )
        for event in ("nascita", "morte")
    )
    life = f"{first or '…'} – {last}" if values.get("annomorte") else first
    before = values.get("predata", "")
    if _PRONUNCIATION.match(before):
        before = ""
    return "; ".join(filter(None, (before, life)))


def _year(year: str) -> str:
    return "…" if year == "?" else year


def _work(values: Mapping[str, str]) -> str:
    """What somebody does: attore, regista e scrittore."""
    works = [work for n in ("", "2", "3") if (work := values.get(f"attività{n}", ""))]
    others = values.get("attivitàaltre", "")
    if len(works) > 1 and not others:
        *works, last = works
        return f"{', '.join(works)} {'ed' if last[:1] == 'e' else 'e'} {last}"
    return _joined(", ".join(works), others)


def _article(word: str, is_woman: bool) -> str:
    word = word.lstrip("'").lower()
    if is_woman:
        return "un'" if word[:1] in "aeiou" else "una"
    return "uno" if _IMPURE.match(word) else "un"


def _joined(text: str, words: str) -> str:
    """Both, with a space between them unless punctuation follows."""
    words = words.removeprefix("&nbsp;").removeprefix("&#32;").strip()
    return f"{text} {words}".strip() if not words or words[0] not in _MARKS else text + words


def _ended(text: str, values: Mapping[str, str]) -> str:
    """With a full stop, unless there is one or the page adds its own."""
    is_ended = text.rstrip("'\"»”").endswith((".", "!", "?")) or values.get("punto") == "no"
    return text if is_ended else f"{text}."
