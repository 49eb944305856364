"""Prompts for samples, and a sentence that shows a tokenizer's pieces, by language."""

from __future__ import annotations

NUM_PROMPTS = 4
_OPENING_CHARS = 60

# The Portuguese prompts are those of GPorTuguese-2's model card. Each language has a question with the
# start of its answer, a news item, a biography and a place.
PROMPTS: dict[str, tuple[str, ...]] = {
    "pt": (
        "Quem era Jim Henson? Jim Henson era um",
        "Em um achado chocante, o cientista descobriu um",
        "Barack Hussein Obama II, nascido em 4 de agosto de 1961, é",
        "Corrida por vacina contra Covid-19 já tem",
    ),
    "en": (
        "Who was Jim Henson? Jim Henson was an",
        "To everyone's surprise, the scientist discovered a",
        "Charles Darwin, born on 12 February 1809, was an",
        "The city of London is",
    ),
    "it": (
        "Chi era Jim Henson? Jim Henson era un",
        "Con grande sorpresa di tutti, lo scienziato scoprì un",
        "Leonardo da Vinci, nato il 15 aprile 1452, fu un",
        "La città di Roma è",
    ),
    "es": (
        "¿Quién era Jim Henson? Jim Henson era un",
        "Para sorpresa de todos, el científico descubrió un",
        "Gabriel García Márquez, nacido el 6 de marzo de 1927, fue un",
        "La ciudad de Madrid es",
    ),
    "fr": (
        "Qui était Jim Henson ? Jim Henson était un",
        "À la surprise générale, le scientifique a découvert un",
        "Marie Curie, née le 7 novembre 1867 à Varsovie, est une",
        "La ville de Paris est",
    ),
    "de": (
        "Wer war Jim Henson? Jim Henson war ein",
        "Zur Überraschung aller entdeckte der Wissenschaftler ein",
        "Johann Wolfgang von Goethe, geboren am 28. August 1749, war ein",
        "Die Stadt Berlin ist",
    ),
}
PROBES = {
    "pt": "Gosto do queijo e vinho.",
    "en": "I like cheese and wine.",
    "it": "Mi piacciono il formaggio e il vino.",
    "es": "Me gustan el queso y el vino.",
    "fr": "J'aime le fromage et le vin.",
    "de": "Ich mag Käse und Wein.",
}


def opening_of(text: str) -> str:
    """The first words of a text, at most half of its first line.

    >>> opening_of("Lisboa é a capital de Portugal.")
    'Lisboa é a'
    """
    line = text.partition("\n")[0]
    end = min(_OPENING_CHARS, (len(line) + 1) // 2)
    # a text without spaces is cut anywhere
    return line[: end + 1].rpartition(" ")[0].rstrip() or line[:end]
