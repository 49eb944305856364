"""Shows the doctests of docstrings as code blocks in the site (a griffe extension)."""

import re

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
DIRECTIVE = re.compile(r" *# doctest: .*")


class Examples(griffe.Extension):
    """Puts fences around the doctests of every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Called for everything in a package."""
        if obj.docstring:
            text = DIRECTIVE.sub("", obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub(r"```pycon\n\g<0>\n```", text)

    def on_package(self, *, pkg: griffe.Module, **kwargs: object) -> None:
        """Called for the package itself."""
        self.on_object(obj=pkg)
