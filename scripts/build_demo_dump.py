"""Builds src/gportuguese/assets/demo-ptwiki.xml.bz2 from the articles in scripts/demo_wikipedia/.

    python scripts/build_demo_dump.py

The dump has the layout of Wikimedia's pages-articles dumps. The same articles give the same bytes.
"""

import bz2
import re
import sys
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

HERE = Path(__file__).parent
NAMESPACES = {
    "": 0,
    "Discussão": 1,
    "Usuário(a)": 2,
    "Wikipédia": 4,
    "Ficheiro": 6,
    "Predefinição": 10,
    "Ajuda": 12,
    "Categoria": 14,
}
REDIRECT = re.compile(r"#REDIRECIONAMENTO\s*\[\[([^\]]+)\]\]", re.IGNORECASE)
TIMESTAMP = "2026-11-01T00:00:00Z"


def siteinfo() -> str:
    """The header of the dump."""
    names = "\n".join(
        f'      <namespace key="{key}" case="first-letter">{name}</namespace>'
        if name
        else f'      <namespace key="{key}" case="first-letter" />'
        for name, key in NAMESPACES.items()
    )
    return (
        "  <siteinfo>\n    <sitename>Wikipédia de demonstração</sitename>\n"
        "    <dbname>demo-ptwiki</dbname>\n    <generator>build_demo_dump.py</generator>\n"
        f"    <case>first-letter</case>\n    <namespaces>\n{names}\n    </namespaces>\n"
        "  </siteinfo>\n"
    )


def page(page_id: int, title: str, wikitext: str) -> str:
    """One <page>."""
    prefix, colon, _ = title.partition(":")
    namespace = NAMESPACES.get(prefix, 0) if colon else 0
    target = REDIRECT.match(wikitext)
    redirect = f"    <redirect title={quoteattr(target[1])} />\n" if target else ""
    return (
        f"  <page>\n    <title>{escape(title)}</title>\n    <ns>{namespace}</ns>\n"
        f"    <id>{page_id}</id>\n{redirect}    <revision>\n      <id>{100_000 + page_id}</id>\n"
        f"      <timestamp>{TIMESTAMP}</timestamp>\n      <model>wikitext</model>\n"
        f"      <format>text/x-wiki</format>\n"
        f'      <text xml:space="preserve">{escape(wikitext)}</text>\n'
        "    </revision>\n  </page>\n"
    )


def dump_xml(folder: Path) -> str:
    """The whole dump as text."""
    files = sorted(folder.glob("*.wiki"))
    pages = [
        page(number, path.stem, path.read_text(encoding="utf-8").strip())
        for number, path in enumerate(files, start=1)
    ]
    head = (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" '
        'xml:lang="pt">\n'
    )
    return head + siteinfo() + "".join(pages) + "</mediawiki>\n"


def main() -> None:
    """Writes the asset, or the file named on the command line."""
    default = HERE.parent / "src/gportuguese/assets/demo-ptwiki.xml.bz2"
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    text = dump_xml(HERE / "demo_wikipedia")
    out.write_bytes(bz2.compress(text.encode()))
    print(f"{out}: {text.count('<page>')} pages, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
