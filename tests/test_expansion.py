"""Templates expanded by their definitions: examples worked by hand from MediaWiki's documentation."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gportuguese.wikitext import language_of, wikitext_to_text
from gportuguese.wikitext.definitions import Templates, kind_of
from gportuguese.wikitext.expansion import expand
from gportuguese.wikitext.expressions import ExpressionError, evaluate
from gportuguese.wikitext.names import definition_key
from gportuguese.wikitext.preprocessor import transcluded

PT = language_of("pt")
WORDS = {
    "Km": "{{{1}}} km",
    "Default": "{{{1|nada}}}",
    "Empty default": "{{{1|}}}",
    "Named": "<{{{a}}}>",
    "Two": "{{{1}}}{{{2}}}",
    "Lower": "{{lc:{{{1}}}}}",
    "Nested": "{{Km|{{{1}}}}} ({{Default}})",
    "Which": "{{#switch:{{{1}}}|a|b=AB|c=C|#default=D}}",
    "Case": "{{#switch:{{{1}}}|a=A|other}}",
    "Optional": "{{{1}}}{{#if:{{{2|}}}| de {{{2}}}}}",
    "Lists": "* um\n* dois",
    "Self": "x{{Self}}",
    "Ping": "{{Pong}}.",
    "Pong": "{{Ping}}!",
    "Table word": "{{lang|de|{{{1}}}}}",
    "Lua inside": "a {{#invoke:M|f}} b",
    "Lua in a branch": "{{#if:{{{1|}}}|{{#invoke:M|f}}|palavras}}",
    "Checked": "{{#invoke:Check for unknown parameters|check|1}}{{{1}}}",
    "Unless": "{{#ifeq:{{{1}}}|{{{2}}}|igual|diferente}}",
    "Doc": "{{{1}}}<noinclude>\n{{documentação}} [[Categoria:X]]</noinclude>",
    "Only": "fora <onlyinclude>dentro</onlyinclude> fora<onlyinclude>!</onlyinclude>",
    "Included": "<includeonly>sim</includeonly><noinclude>não</noinclude>",
    "Commented": "a<!-- b -->c\n<!-- linha -->\nd",
    "Note": "palavra<ref>fonte</ref>",
}
BOXES = {
    "Box": '{| class="infobox"\n| {{{1}}}\n|}',
    "Html box": "<table><tr><td>{{{1}}}</td></tr></table>",
    "Hatnote": ":''Ver [[{{{1}}}]].''",
    "Hatnote class": '<span class="hatnote">Ver {{{1}}}</span>',
    "Needs source": '<sup class="noprint Inline-Template">[carece de fontes]</sup>',
    "Hidden": '<span style="display:none">{{{1}}}</span>',
    "Wrapped": "{{Box|{{{1}}}}}",
    "Built": "{{{!}}\n{{!}} {{{1}}}\n{{!}}}",
    "Notice": "Este artigo carece de {{{1}}}.<noinclude>[[Categoria:Predefinições de manutenção]]</noinclude>",
    "Stub": '<div class="boilerplate stub">Esboço sobre {{{1}}}</div>',
}


def templates(definitions, language=PT):
    """Definitions as a dump would hold them; a value `->X` is a redirect."""

    def fetch(name):
        text = definitions.get(name)
        if text is None:
            return None
        if text.startswith("->"):
            name = text[2:]
            text = definitions.get(name, "->")
            if text.startswith("->"):
                return name, "lua", ""
        body = transcluded(text)
        return name, kind_of(body, text), body

    return Templates(fetch, language)


ALL = templates(
    {**WORDS, **BOXES, "Quilómetro": "->Km", "Idioma x": "->Lang", "Far": "->Quilómetro"}
)


def expanded(wikitext, found=ALL):
    return expand(wikitext, "Serra da Estrela", found)[0]


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        # parameters
        ("{{Km|3}}", "3 km"),
        ("{{km|3}} {{ Km |3}} {{Predefinição:Km|3}} {{template:km|3}}", "3 km 3 km 3 km 3 km"),
        ("{{Km| 3 }}", " 3  km"),  # spaces stay around a positional value, not a named one
        ("{{Km|1= 3 }}", "3 km"),
        ("{{Km|3|1=4}} {{Km|1=4|3}}", "4 km 3 km"),  # the last one holds
        ("{{Km}}", " km"),
        ("{{Default}} {{Default|}} {{Default|x}}", "nada  x"),
        ("{{Empty default}}", ""),
        ("{{Named|a=[[b|c=d]]}}", "<[[b|c=d]]>"),
        ("{{Two|[[a|b]]|{{Km|1}}}}", "[[a|b]]1 km"),
        ("{{Two|x|2={{Km|a=1|1=2}}}}", "x2 km"),
        ("{{Two|<nowiki>a|b</nowiki>|c}}", "<nowiki>a|b</nowiki>c"),
        ("{{Two|a<!-- | -->b|c}}", "abc"),
        ("{{Km|{{{x|7}}}}}", "7 km"),
        ("{{Nested|5}}", "5 km (nada)"),
        ("{{Km|x{y}z}}", "x{y}z km"),
        # names
        ("{{{{Default|Km}}|2}}", "2 km"),
        ("{{Km#secção|2}}", "2 km"),
        ("{{Quilómetro|2}}", "2 km"),
        ("{{safesubst:Km|2}}", "2 km"),
        # inclusion
        ("{{Doc|a}} {{Only}} {{Included}}", "a dentro! sim"),
        ("{{Commented}}", "ac\nd"),
        # functions
        ("{{#if: x | sim | não }}{{#if:  |sim|não}}{{#if:|sim}}", "simnão"),
        ("{{#se: x |sim|não}}", "sim"),
        ("{{#ifeq: 01 | 1.0 |igual|diferente}}", "igual"),
        ("{{#ifeq: a | A |igual|diferente}}", "diferente"),
        ("{{#ifeq: 1e3 | 1000 |igual}}", "igual"),
        ("{{Unless|x|y}} {{Unless| x |x}}", "diferente igual"),
        ("{{Which|a}}{{Which|b}}{{Which|c}}{{Which|z}}", "ABABCD"),
        ("{{Case|a}} {{Case|b}}", "A other"),
        ("{{#switch: 2 | 02 = dois | 3 = três }}", "dois"),
        ("{{#switch: x | y = 1 }}", ""),
        ("{{#switch: z | a = 1 | #default = 2 | b = 3 }}", "2"),
        ("{{#switch: b | a | b | c = 1 | d = 2 }}", "1"),
        ("{{#ifexist: Lisboa | [[Lisboa]] | Lisboa }}", "Lisboa"),
        ("{{lc:ÁGUA}} {{uc:água}} {{ucfirst:água}} {{lcfirst:Água}}", "água ÁGUA Água água"),
        ("{{LC:A}} {{Lower|ÇÃO}}", "a ção"),
        ("{{formatnum:1234567.5}} {{formatnum:1234567|R}}", "1 234 567,5 1234567"),
        ("{{padleft:7|3}} {{padright:7|3|x}} {{padleft:xyz|2}}", "007 7xx xyz"),
        ("{{urlencode:a b|WIKI}} {{urlencode:a b}}", "a_b a+b"),
        ("{{#expr: 2 + 3 * 4 }} {{#ifexpr: 3 > 2 |sim|não}}", "14 sim"),
        ("{{#iferror: {{#expr: 1/0 }} |erro|certo}} {{#iferror: 5 |erro}}", "erro 5"),
        ("{{PAGENAME}} {{PAGENAMEE}} {{NAMESPACE}}.", "Serra da Estrela Serra_da_Estrela ."),
        ("{{Km|1{{!}}2}} {{DEFAULTSORT:Estrela}}", "1|2 km "),
        ("{{Optional|rio}} {{Optional|rio|Lisboa}}", "rio riode Lisboa"),
        # lists begin a line of their own
        ("a {{Lists}}", "a \n* um\n* dois"),
        ("a\n{{Lists}}", "a\n* um\n* dois"),
        # self-reference
        ("{{Self}} {{Ping}}", "x !."),
        # tables of names
        ("{{Table word|Haus}}", "{{lang|de|Haus}}"),
        ("{{lang|de|{{Km|2}}}}", "{{lang|de|2 km}}"),
        ("{{Idioma x|de|Haus}}", "{{Lang|de|Haus}}"),
        ("{{lang|de|{{urlencode:a|b}}{{!}}{{#if:x|c=d}}}}", "{{lang|1=de|2=a|c=d}}"),
        ("{{lang|de|[[a|b=c]]}}", "{{lang|1=de|2=[[a|b=c]]}}"),
        # Lua
        ("{{Lua inside}} {{Missing|{{Km|1}}}}", "{{Lua inside}} {{Missing|{{Km|1}}}}"),
        ("{{Lua in a branch}} {{Lua in a branch|x}}", "palavras {{Lua in a branch|x}}"),
        ("{{Km|{{Lua inside}}}}", "{{Lua inside}} km"),
        ("{{Checked|a}}", "a"),
        ("{{#ifeq:{{Lua inside}}|x|a|b}}", "{{#ifeq:{{Lua inside}}|x|a|b}}"),
        ("{{Which|{{Lua inside}}}}{{Which}}", "{{Which|{{Lua inside}}}}D"),
        ("{{#if:{{Lua inside}}|a|b}}", "a"),
        ("{{lc:{{Lua inside}}}} {{#expr:{{Lua inside}}}}", "{{lc:{{Lua inside}}}} {{#expr:{{Lua inside}}}}"),
        ("{{#expr:1/0}}", "{{#expr:1/0}}"),
        ("{{subst:Km|1}} {{#time:Y}} {{CURRENTYEAR}}", "{{subst:Km|1}} {{#time:Y}} {{CURRENTYEAR}}"),
        ("{{Far|1}}", "{{Far|1}}"),  # MediaWiki follows one redirect
        # what MediaWiki does not expand
        ("<nowiki>{{Km|1}}</nowiki><!-- {{Km|1}} --> {{Km|1", "<nowiki>{{Km|1}}</nowiki><!-- {{Km|1}} --> {{Km|1"),
        ("{{Km|[[a}}]]", "{{Km|[[a}}]]"),
        ("{{Note|1}}", "palavra<ref>fonte</ref>"),
    ],
)  # fmt: skip
def test_a_call_gives_what_mediawiki_gives(call, wanted):
    assert expanded(call) == wanted


@pytest.mark.parametrize("name", BOXES)
def test_boxes_navigation_maintenance_and_notes_leave_nothing(name):
    assert clean(f"Antes {{{{{name}|caixa}}}} depois.") == "Antes depois."


def clean(wikitext, found=ALL):
    return wikitext_to_text(expanded(wikitext, found), "Título", PT)


def test_words_of_a_template_are_cleaned_as_those_of_the_page():
    found = templates(
        {"A": "'''[[Lisboa|{{{1}}}]]'''<ref>x</ref> [[Ficheiro:A.png|20px]] {{Box}}", **BOXES}
    )
    assert clean("Em {{A|a capital}}.", found) == "Em a capital."


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("", ""), ("1 or 0", "1"), ("not (1 and 0)", "1"), ("-2 <= -2", "1"), ("(1/3) * 3", "1"),
        ("3 / 0.2", "15"), ("3 mod 2", "1"), ("-7 mod 3", "-1"), ("1e4", "10000"), ("1e-2", "0.01"),
        ("4.5 round 0", "5"), ("-4.5 round 0", "-5"), ("12345 round -2", "12300"), ("ceil -4.5", "-4"),
        ("trunc -4.5", "-4"), ("abs(-2)", "2"), ("ln(exp(1))", "1"), ("5.7 fmod 1.3", "0.5"),
        ("-2 ^ 2", "4"), ("2 + 3 * 4 ^ 2", "50"), ("1 / 3", "0.33333333333333"), ("2^70", "1.1805916207174E+21"),
        ("1 &lt; 2", "1"), ("3 − 1", "2"), ("(2", "2"),
    ],
)  # fmt: skip
def test_expressions(expression, value):
    assert evaluate(expression) == value


@pytest.mark.parametrize("expression", ["1/0", "1 2", "a", "2 +", ")", "9^9^9^9", "ln 0", "-1 ^ 0.5", "(" * 99, "1" * 9999])  # fmt: skip
def test_what_is_no_expression_is_refused(expression):
    with pytest.raises(ExpressionError):
        evaluate(expression)


BOMBS = {
    "breadth": {"B": "{{C}}" * 1000, "C": "{{D}}" * 1000, "D": "x" * 1000},
    "doubling": {"B": "{{B1|{{{1|x}}}{{{1|x}}}}}", **{f"B{n}": f"{{{{B{n + 1}|{{{{{{1}}}}}}{{{{{{1}}}}}}}}}}" for n in range(1, 60)}},
    "depth": {"B": "{{B1}}", **{f"B{n}": f"{{{{B{n + 1}}}}}" for n in range(1, 99)}},
    "default": {"B": "{{#switch:x|" * 90 + "y" + "}}" * 90},
    "padding": {"B": "{{padleft:|499|" * 30 + "x" + "}}" * 30},
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_bomb_ends_is_named_and_harms_no_other_call(name):
    bomb = templates({**BOMBS[name], "Km": "{{{1}}} km"})
    start = time.process_time()
    text, over = expand("{{B}} {{Km|1}} {{B}} {{B|x}} {{Km|2}}", "T", bomb)
    assert time.process_time() - start < 1
    assert "1 km" in text
    assert "2 km" in text
    assert len(text) < 200_000
    assert over == ({} if name == "padding" else {"B": 3})


HOSTILE = {
    "bombs": "{{B|a}}",
    "other names": "{{B|a}}{{Km|{{B}}}}",
    "unclosed": "{{Km|",
    "unclosed parameters": "{{{a|",
    "links": "{{Km|[[a",
    "braces": "{",
    "closers": "{{Km|1}}}}",
    "arguments": "{{Km|1|2=|3=a}}",
    "tags": "{{Km|<ref>a",
    "comments": "{{Km|<!--",
    "words": "{{Km|1}}",
    "nested": "{{Km|{{Km|1}}}}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_linear_in_the_length_of_a_page(name):
    found = templates({**BOMBS["breadth"], "Km": "{{{1}}} km"})

    def seconds(times):
        start = time.process_time()
        expand(HOSTILE[name] * times, "T", found)
        return time.process_time() - start

    few, many = (min(seconds(times) for _ in range(2)) for times in (1500, 6000))
    # four times the length: a quadratic reader would take 16 times; below 0.1 s it is noise
    assert many < max(8 * few, 0.1)


TEXTS = {
    "nowiki": "<nowiki>a", "comments": "\n<!-- a", "closed comments": "\n <!-- a --> ", "noinclude": "<noinclude>",
    "onlyinclude": "<onlyinclude>a", "spaces": "{{" + " " * 50, "one tag": "<b class= ", "classes": " class=",
    "links": "[[a:b ", "headings": "\n== a ", "names": "a" * 50,
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_time_is_linear_in_the_length_of_a_definition(name):
    def seconds(times):
        text = "{{Km|<b" + TEXTS[name] * times
        start = time.process_time()
        kind_of(transcluded(text), text)
        found = templates({"A": text, "Km": "{{{1}}}"})
        expand("{{A}}" + text, "T", found)
        return time.process_time() - start

    few, many = (min(seconds(times) for _ in range(2)) for times in (2000, 8000))
    assert many < max(8 * few, 0.1)


def test_comments_alone_on_a_line_take_it_with_them():
    text = "a<!-- x -->b\n<!-- y --> <!-- z -->\nc\n <!-- w --> d\n<nowiki><!-- v --></nowiki>\n"
    assert transcluded(text) == "ab\nc\n  d\n<nowiki><!-- v --></nowiki>\n"


@pytest.mark.parametrize("name", ["unclosed", "closing"])
def test_depth_costs_no_more_than_length(name):
    deep = "{{Km|" * 20_000 + ("}}" * 20_000 if name == "closing" else "")
    start = time.process_time()
    text, _ = expand(deep, "T", ALL)
    assert time.process_time() - start < 2
    assert len(text) <= len(deep) + 100_000


PIECES = ["{{", "}}", "{{{", "}}}", "[[", "]]", "|", "=", "\n", "1", "a", "Km", "Two|", "Self", "Which|", "#if:",
          "#switch:", "#default", "#expr:", "lc:", "<nowiki>", "</nowiki>", "<!--", "-->", "<ref>", "</ref>",
          "<noinclude>", "</noinclude>", "<onlyinclude>", "{|", "'''", "== x ==", " "]  # fmt: skip


@given(
    st.lists(st.sampled_from(PIECES), max_size=80).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=40).map("".join),
)
def test_any_page_with_any_definition_ends_without_markup(page, definition):  # fmt: skip
    found = templates({**WORDS, "A": definition, "1": definition})
    text, _ = expand(page, "T", found)
    assert len(text) <= len(page) + 100_000
    plain = wikitext_to_text(text, "T", PT)
    assert "{{" not in plain
    assert "[[" not in plain


@given(st.text(max_size=300))
def test_any_text_passes_that_calls_nothing(text):
    assert (
        expand(text, "T", templates({}))[0].replace("|", "")
        == text.replace("{{!}}", "").replace("|", "")
        or "{{" in text
    )


def test_names_are_kept_with_a_capital():
    assert definition_key("água doce") == "Água doce"


def test_definitions_that_are_kept_parsed_stay_few(monkeypatch):
    monkeypatch.setattr("gportuguese.wikitext.definitions._CACHED_CHARS", 100)
    found = templates({f"T{number}": "x" * 60 for number in range(50)})
    for number in range(50):
        assert expanded(f"{{{{t{number}}}}}", found) == "x" * 60
        assert len(found._known) <= 2
