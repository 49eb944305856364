"""Characters that the parser leaves for `layout`; no XML, so no dump, can hold them."""

HOLE = "\x00"
"""A formula that is no text: its sentence goes."""
NOTHING = "\x01"
"""Between two runs of quotes that were apart: they are not one run of four or six."""
