"""Characters that the parser leaves for `layout` or for itself; XML, and so a dump, cannot hold them."""

HOLE = "\x00"
"""A formula or code that cannot be written as text: `layout` drops its sentence."""
NOTHING = "\x01"
"""Separates runs of quotes that removed markup stood between, so that they do not join."""
EQUALS, BAR = "\x02", "\x03"
"""An equals sign and a bar shown inside a template's argument, where plain ones would split it."""

PROTECT = str.maketrans("=|", EQUALS + BAR)
RESTORE = str.maketrans(EQUALS + BAR, "=|")


def join_pieces(pieces: list[str]) -> str:
    """The pieces as one text, with the quotes of different pieces kept apart.

    Otherwise ''{{x}}'' and ''X''<sub>''n''</sub> would have four quotes in a row.
    """
    text = NOTHING.join(pieces)
    if f"'{NOTHING}" not in text:
        return text.replace(NOTHING, "")
    while NOTHING * 2 in text:
        text = text.replace(NOTHING * 2, NOTHING)
    return (
        text.replace(f"'{NOTHING}'", f"'{HOLE}'")
        .replace(NOTHING, "")
        .replace(f"'{HOLE}'", f"'{NOTHING}'")
    )
