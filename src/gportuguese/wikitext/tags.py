"""Names of the tags that MediaWiki knows, by what they do to running text."""

# What stands between these tags is no running text.
DROPPED_ELEMENTS = frozenset((
    "ref", "gallery", "score", "timeline", "mapframe", "maplink", "pre", "hiero", "imagemap", "graph", "templatestyles", "indicator",
    "inputbox", "categorytree", "references", "includeonly", "style", "script", "select",
    "section", "templatedata",
))  # fmt: skip
# Of these, the ones that end a paragraph.
DROPPED_BLOCKS = frozenset(("gallery", "timeline", "mapframe", "pre", "imagemap", "graph"))
# These show what can be read in a line of text.
FORMULAS = frozenset(("math", "chem", "ce"))
CODE = frozenset(("code", "syntaxhighlight", "source"))
BREAKS = frozenset((
    "p", "div", "li", "ul", "ol", "dl", "dt", "dd", "blockquote", "poem", "center", "hr", "tr",
    "caption",
))  # fmt: skip
# What MediaWiki takes for a tag; anything else in angle brackets it shows: #include <vector>.
TAGS = DROPPED_ELEMENTS | FORMULAS | CODE | BREAKS | frozenset((
    "a", "abbr", "b", "bdi", "bdo", "big", "br", "cite", "data", "del", "dfn", "em", "font",
    "h1", "h2", "h3", "h4", "h5", "h6", "i", "img", "ins", "kbd", "langconvert", "link", "mark",
    "meta", "noinclude", "nowiki", "onlyinclude", "phonos", "q", "rb", "rp", "rt", "rtc", "ruby",
    "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "table", "tbody", "td", "th",
    "thead", "time", "translate", "tt", "tvar", "u", "var", "wbr",
))  # fmt: skip
