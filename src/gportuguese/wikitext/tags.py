"""Names of the tags that MediaWiki knows, by their effect on running text."""

# The content of these tags is dropped.
DROPPED_ELEMENTS = frozenset((
    "ref", "gallery", "score", "timeline", "mapframe", "maplink", "pre", "hiero", "imagemap", "graph", "templatestyles", "indicator",
    "inputbox", "categorytree", "references", "includeonly", "style", "script", "select",
    "section", "templatedata",
))  # fmt: skip
# Those of them that end a paragraph.
DROPPED_BLOCKS = frozenset(("gallery", "timeline", "mapframe", "pre", "imagemap", "graph"))
# These may be shown in a line of text.
FORMULAS = frozenset(("math", "chem", "ce"))
CODE = frozenset(("code", "syntaxhighlight", "source"))
BREAKS = frozenset((
    "p", "div", "li", "ul", "ol", "dl", "dt", "dd", "blockquote", "poem", "center", "hr", "tr",
    "caption",
))  # fmt: skip
# All tags of MediaWiki. Other words in angle brackets are shown as they are: #include <vector>.
TAGS = DROPPED_ELEMENTS | FORMULAS | CODE | BREAKS | frozenset((
    "a", "abbr", "b", "bdi", "bdo", "big", "br", "cite", "data", "del", "dfn", "em", "font",
    "h1", "h2", "h3", "h4", "h5", "h6", "i", "img", "ins", "kbd", "langconvert", "link", "mark",
    "meta", "noinclude", "nowiki", "onlyinclude", "phonos", "q", "rb", "rp", "rt", "rtc", "ruby",
    "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "table", "tbody", "td", "th",
    "thead", "time", "translate", "tt", "tvar", "u", "var", "wbr",
))  # fmt: skip
