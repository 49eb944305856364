"""What wikitext must become: faults of today's extractors, each as input -> wanted output."""

import gc
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gportuguese.wikitext import FAULT, language_of, wikitext_to_text
from gportuguese.wikitext.layout import drop_emphasis, repair
from gportuguese.wikitext.parser import strip_markup
from tests.conftest import SHARED

PT = language_of("pt")


def clean(wikitext, language=PT):
    return wikitext_to_text(wikitext, "Título", language)


@pytest.mark.parametrize(
    ("wikitext", "wanted"),
    [
        # links
        (
            "em [[Missão: Impossível]], em [[Star Wars: IV|Nova Esperança]]",
            "em Missão: Impossível, em Nova Esperança",
        ),
        (
            "O [[:en:Soft power|soft power]] e a obra [[s:Os Lusíadas|Os Lusíadas]]",
            "O soft power e a obra Os Lusíadas",
        ),
        ("no [[TLC: Tables, Ladders and Chairs]] de", "no TLC: Tables, Ladders and Chairs de"),
        ("O rio [[Paraná (rio)|]] corre", "O rio Paraná corre"),
        ("[[gato]]s e [[cão|cães]]", "gatos e cães"),
        ("[[Ficheiro:A.jpg|thumb|[http://x y]]] texto", "texto"),
        ("[http://x.com/ texto [com] colchetes] fim", "texto [com] colchetes fim"),
        ("Fim.\n[[Categoria:Rios]]\n[[en:River]]", "Fim."),
        ("A [[:Categoria:Rios]] existe", "A Categoria:Rios existe"),
        ("[[Ficheiro:X.jpg|thumb|Um [[rio]] e um [[mar]]]]Texto", "Texto"),
        ("[[Imagem:X.jpg|200px|{{legenda|a}}]] O texto", "O texto"),
        ("Um [[1198 sem fim. Outro [[rio]] aqui.", "Um 1198 sem fim. Outro rio aqui."),
        ("[http://a.pt O sítio] e [http://b.pt] fim", "O sítio e fim"),
        # templates that carry words
        ("{{formatnum:1234567}} habitantes", "1 234 567 habitantes"),
        ("tem {{fmtn|324|m}} de altura", "tem 324 m de altura"),
        (
            "X ({{dni|8|12|1977}} – [[Olinda]]) é",
            "X (8 de dezembro de 1977 – Olinda) é",
        ),
        ("no {{séc|XIX}} e no {{século|XX}}", "no século XIX e no século XX"),
        ("'''{{nihongo|Tóquio|東京|Tōkyō}}''' é", "Tóquio (東京, Tōkyō) é"),
        ("Moscou ({{lang-ru|Москва}}, {{IPA|mɐˈskva}}) é", "Moscou (em russo: Москва) é"),
        ("Moscou ({{IPA|mɐˈskva}}, {{áudio|x.ogg}}) é", "Moscou é"),
        ("({{lang|la|Olisipo}}) foi", "(Olisipo) foi"),
        ("{{BRA}} e {{POR}} jogaram", "Brasil e Portugal jogaram"),
        ("A {{nowrap|10 km}} dali", "A 10 km dali"),
        ("{{converter|10|km|mi}} depois", "10 km depois"),
        ("{{CURRENTYEAR}} passou", "passou"),
        ("{{Info/Rio|nome={{nowrap|Tejo}}\n|foz=[[Lisboa]]}}O Tejo", "O Tejo"),
        ("{{esboço}}\nTexto {{carece de fontes|data=maio}}.", "Texto."),
        ("{{Info/Rio\n|nome = Tejo\n|foz = Lisboa\n'''Tejo''' é um rio.", "Tejo é um rio."),
        ("o ano {{AC|44}}, em {{dtlink|22|4}} e {{dtlink|||1950}}", "o ano 44 a.C., em 22 de abril e 1950"),
        ("no {{séculos|XV|XVI}}, pois {{séculos|XV}}", "no séculos XV e XVI, pois séculos XV"),
        ("{{abbr|pág.|página}} 3, {{per}}{{PER}}, fim.{{-}}", "pág. 3, Peru, fim."),
        ("de {{convert|2|-|3|km}} a {{converter|66|a|883|km2}}", "de 2–3 km a 66 a 883 km2"),
        ("{{Info|a=b}}}'''Tejo''' é um rio.\nMais.", "Tejo é um rio. Mais."),
        # tags
        ("10<sup>6</sup> e H<sub>2</sub>O, n<sup>o</sup> 1", "10^6 e H2O, nº 1"),
        ('a <span title="a > b">palavra</span> fica', "a palavra fica"),
        ("antes<ref>nota</ref> depois<ref name=x /> fim", "antes depois fim"),
        ('a<ref name="x">b<ref name="y">nota</ref> c', "ab c"),
        ("Ab.<ref>nota <code><ref></code> mais</ref> c.", "Ab. c."),
        ("antes<ref>nota sem fim\ndepois", "antes depois"),
        ("antes<!-- nota sem fim\ndepois", "antes depois"),
        ("antes <!-- nota\n --> depois", "antes depois"),
        ("a <math>x^2</math> b <score>c d</score> c <chem>H2O</chem> d", "a x^2 b c H2O d"),
        ("usa <code>print</code> e <nowiki>[[isto]]</nowiki>", "usa print e isto"),
        ("a<br />b<br>c", "a b c"),
        ("texto <gallery>\nA.jpg|legenda\n</gallery> fim", "texto\nfim"),
        ("<table><tr><td>1</td></tr></table>Texto", "Texto"),
        ("Um <p texto", "Um <p texto"),
        ("Use #include <vector> e a consoante <r> aqui", "Use #include <vector> e a consoante <r> aqui"),
        ("uma <]ref>nota <''ref>fica [[", "uma nota fica"),
        ("uma <r<!]--ef>nota", "uma ref>nota"),
        ("de <nome do autor> e <b>[[Lisboa]]</b>", "de <nome do autor> e Lisboa"),
        (
            'A<ref name="x">b. Texto que fica. Mais<ref>nota</ref> c',
            "Ab. Texto que fica. Mais c",
        ),
        ('a<ref name="x"/ >b c d.', "ab c d."),
        ("A<ref>n</ref > tem.\n== B ==\nFoi.<ref>y</ref> Fim.", "A tem.\nB\nFoi. Fim."),
        ("a <gallery>\nA.jpg\n</Gallery>\nTexto.\n<gallery>b</gallery> fim", "a\nTexto.\nfim"),
        ("10<sup>[[a|2]]</sup> m", "10^2 m"),
        ("'''!Kung''' é um povo.\nOutro.", "!Kung é um povo. Outro."),
        ("{|\n| a\n\nTexto da página.", "Texto da página."),
        ("o domínio .pt e a plataforma .NET", "o domínio .pt e a plataforma .NET"),
        ("R&notícias e x?a=1&copy=2", "R&notícias e x?a=1&copy=2"),
        ("[[doi:10.1|artigo]] e [[fr:Rivière]]", "artigo e"),
        # characters
        ("AT&amp;T &ndash; &quot;x&quot; &nbsp;y", 'AT&T – "x" y'),
        ("cafe\u0301", "café"),
        ("__SEMTDC__Texto__NOTOC__", "Texto"),
        ("'''''a''''' ''b'' d'''Ávila'''", "a b dÁvila"),
        ("leu l'''Eneide'', '''viu'''", "leu l'Eneide, viu"),
        ("na '''copa''' d'''África'' e", "na copa d'África e"),
        ("o ''Merry Christmas''' e", "o Merry Christmas' e"),
        ("a '''{{PAGENAME}}''' b", "a Título b"),
        # lines
        ("* um\n* dois\n# três\n; termo : sentido", "um\ndois\ntrês\ntermo: sentido"),
        ("(Nota inicial.)\nTexto {chaves} fica.", "(Nota inicial.) Texto {chaves} fica."),
        ("{| class=x\n|-\n| 1 || 2\n|}\nTexto", "Texto"),
        ("{|\n|-\n| {| \n| 1\n|}\n|}\nTexto", "Texto"),
        ("{|\n| a\n| b\n\n== Clima ==\nSeco.", "Clima\nSeco."),
        ("== A ==\n=== B ===\nTexto\n== Vazia ==\n", "A\nB\nTexto"),
        ("Texto\n== Ver também ==\n* [[X]]\n=== Y ===\nz\n== Clima ==\nSeco.", "Texto\nClima\nSeco."),
        ("Texto\n== Ligações externas ==\n* [http://a.pt a]", "Texto"),
    ],
)  # fmt: skip
def test_wikitext_becomes_text(wikitext, wanted):
    assert clean(wikitext) == wanted


@pytest.mark.parametrize(
    ("wikitext", "wanted"),
    [
        # names of languages, and what stands with them
        ("X ({{lang-el|Ξ|x|Ksi}}) é", "X (em grego: Ξ; transl.: Ksi) é"),
        ("X ({{lang-qqq|Ξ}}) é", "X (Ξ) é"),
        ("{{Predefinição:lang|la|Roma}} e {{predefinição:Info/Rio|a=b}}fim", "Roma e fim"),
        ("({{langx|fr|Le Monde}})", "(em francês: Le Monde)"),
        (
            "{{PEPB|autocarro|ônibus}}",
            "autocarro (português europeu) ou ônibus (português brasileiro)",
        ),
        ("{{PBPE|Ônibus}} é", "Ônibus (português brasileiro) é"),
        ("{{BRPT|O Fim}}", "O Fim (título no Brasil)"),
        # numbers, ships, countries
        ("{{frac|2}}, {{frac|3|4}}, {{romano|1994}}", "1/2, 3/4, MCMXCIV"),
        ("{{séc|III|a.C.}}, {{DataExt|1|5|1900}}", "século III a.C., 1 de maio de 1900"),
        ("{{USS|Maine|BB-2}}, {{USS|Maine|BB-2|2}}, {{HMS|Hood}}", "USS Maine (BB-2), Maine, HMS Hood"),
        ("{{navio|HMS|Hood|51|6}}", "HMS Hood"),
        ("{{CIV}}, {{flag|KOR}}, {{GER}}, {{DEU}}", "Costa do Marfim, Coreia do Sul, Alemanha, Alemanha"),
        ("{{BRAb}} {{Flagicon|BRA}} Pelé", "Pelé"),
        ("{{hlist|um|dois}} {{quim|H|2|O}}", "um, dois H2O"),
        # conditions
        ("{{#ifeq:a|a|sim|não}} {{#if:|x|y}} {{#if:x|z}}", "sim y z"),
        ("{{#switch:c|a=1|#default=2|b=3}} {{#switch:a|a|b=4}} {{#switch:z|a=1|5}}", "2 4 5"),
        # emphasis around nothing
        ("um ''<ref>n</ref>'' a '''[[Ficheiro:A.png]]''' b", "um a b"),
        ("'''''{{x}}''''' a ''{{x|{{y}}}}'' b", "a b"),
        ("a ''[[b]]''s c", "a bs c"),
        ("''X''<sub>''n''</sub> e ''[[a|''b'']]''", "Xn e b"),
        # exponents, and what only stands high
        ("2<sup>n+1</sup>, 10<sup>-3</sup>, x<sup>(n)</sup>, 5<sup>1/2</sup>", "2^(n+1), 10^-3, x^(n), 5^1/2"),
        ("M<sup>me</sup>, 1<sup>er</sup>, <sup>14</sup>C, Ca<sup>2+</sup>", "Mme, 1er, 14C, Ca2+"),
        ("2<sup>2n</sup>, 10<sup>''n''</sup>, 10<sup>10<sup>6</sup></sup>, 1<sup>st</sup>", "2^2n, 10^n, 10^(10^6), 1st"),
        ("Foi [carece de fontes] ele.<sup>''[[X|[quem?]]]''</sup> [Sic] e fim [quando?].", "Foi ele. [Sic] e fim."),
        ("{{uc:ab}} {{lc:CD}}, {{x}}; {{y}}!", "AB cd!"),
        ("NH<sub>4</sub><sup>+</sup>, 37<sup>esimo</sup>, 2<sup>e</sup>, 10<sup>x</sup>", "NH4+, 37esimo, 2e, 10^x"),
        ("isto<sup>[quem?]</sup> e 10<sup>[2]</sup>", "isto e 10"),
        # formulas and code
        (r"o vetor <math>\vec{v} \in \mathbb{R}^{n+1}</math>", "o vetor v⃗ ∈ R^(n+1)"),
        (r"a taxa <math>\lambda_1 \leq \frac{a+b}{2}</math>", "a taxa λ_1 ≤ (a+b)/2"),
        (r"Um só. Seja <math>\sum_i x_i</math> a soma. Dois.", "Um só. Dois."),
        (r"A soma é <math>\sum_i x_i</math>. Outra, com <math>\lambda</math>, fica.", "Outra, com λ, fica."),
        ("Isso vale. Isto dá:\n:<math>\\int f</math>\nonde ''f'' é lisa. Mais.", "Isso vale.\nMais."),
        ("Vale:\n:<math>a=b</math>\n\nFim.", "Vale:\na=b\nFim."),
        ("Usa <code>x = [1]</code>.<code>a\nb</code>Fim.", "Usa x = [1].\nFim."),
        ("Usa <source lang=c inline>a[i]</source> aqui", "Usa a[i] aqui"),
        # lines
        ("A [http://a.pt/x.jpg [1]] são 1, 2,... e 3, [http://b.pt c].", "A [1] são 1, 2,... e 3, c."),
        ("Um\n<!-- a -->\ndois\n\ntrês\n* quatro\ncinco", "Um dois\ntrês\nquatro\ncinco"),
        ("<poem>Um verso,\noutro verso</poem>", "Um verso,\noutro verso"),
        ("{{x}}, disse.\n\n; {{y}}. fim", "disse.\nfim"),
        (
            "T.\n== Fontes e ligações externas ==\nx\n== Notas gerais: ==\ny\n== A fonte ==\nz",
            "T.\nA fonte\nz",
        ),
        ("T.\n;Referências\n<references/>", "T."),
        ("[[zh-min-nan:A]] [[x-y:b]] [[Multimédia:A.ogg]] fim", "x-y:b fim"),
        ("um __БЕЗ_ОГЛАВЛЕНИЯ__ dois\u200e \ufefftrês क\u094d\u200dष", "um dois três क\u094d\u200dष"),
    ],
)  # fmt: skip
def test_a_page_reads_as_it_is_shown(wikitext, wanted):
    assert clean(wikitext) == wanted


@pytest.mark.data
def test_cases_from_genuine_pages():
    path = SHARED.parent / "cases" / "wikitext.jsonl"
    if not path.is_file():
        pytest.skip(f"no cases at {path}")
    cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    wrong = [
        (case["why"], got, case["expected"])
        for case in cases
        if (got := clean(case["input"], language_of(case["language"]))) != case["expected"]
    ]
    assert len(cases) >= 33
    assert not wrong


@pytest.mark.parametrize(
    ("loose", "tight"),
    [
        ("Moscou (, ) é  a capital ( ; desde 1918 ) .", "Moscou é a capital (desde 1918)."),
        ("(1950–) vive", "(1950–) vive"),
        ("a (b, ) c", "a (b) c"),
        ("um calibre .45", "um calibre .45"),
        ("a , b , , c", "a, b, c"),
    ],
)
def test_punctuation_is_repaired(loose, tight):
    assert repair(loose) == tight


def test_words_are_tables_one_file_a_language():
    italian = language_of("it")
    assert clean("Nato nel {{formatnum:1234}}.\n== Note ==\n* x", italian) == "Nato nel 1 234."
    assert clean("{{convert|10|km}} off\n== See also ==\n* x", language_of("en")) == "10 km off"
    assert clean("{{convert|10|km}} off", language_of("xx")) == "10 km off"


@pytest.mark.parametrize(
    ("code", "wikitext", "wanted"),
    [
        ("en", "{{cvt|2|-|3|km}}, {{cvt|66|to|883|km2}}", "2–3 km, 66 to 883 km2"),
        (
            "en",
            "{{As of|2015}} the {{currency|13 billion|USD}} is",
            "As of 2015 the 13 billion USD is",
        ),
        ("en", "{{birth date|1977|12|8}}{{-}}", "8 December 1977"),
        (
            "it",
            "a {{M|61.000||km/h}}, {{M|4|k|B}}, {{m|0,161|n|m}}",
            "a 61.000 km/h, 4 kB, 0,161 nm",
        ),
        ("it", "{{Exp|1,9|19}} anni, 250 {{m s.l.m.}}", "1,9×10^19 anni, 250 m s.l.m."),
        ("it", "vincitore {{bandiera|ITA}} [[Guido Carlesi]]", "vincitore Guido Carlesi"),
        ("it", "con {{TA|158 221}} abitanti {{cn|o più}}", "con 158 221 abitanti o più"),
    ],
)
def test_templates_that_carry_words_in_other_languages(code, wikitext, wanted):
    assert clean(wikitext, language_of(code)) == wanted


HOSTILE = {
    "nested ifs": "{{#if:" * 500 + "x" + "}}" * 500 + " fim",
    "unclosed tags": "<p " * 5000,
    "unclosed comments": "<!-- a\n" * 3000,
    "unclosed refs": "<ref>a " * 3000,
    "unclosed links": "[[a|b " * 5000,
    "unclosed templates": "{{a|b\n" * 5000,
    "unbalanced tables": "\n{| a\n| b" * 2000 + "\n|}" * 500,
    "closers": "]]}}|}" * 5000,
    "quotes": "'" * 20000,
    "spans": '<span title="' * 3000,
    "apostrophes in tags": "<a b='c " * 3000,
    "equals": "\n" + "=" * 20000,
    "brackets": "[" * 20000,
    "braces": "{" * 20000,
    "parentheses": "( , " * 5000,
    "spaces": "a" + " " * 50000 + "b",
    "list marks": "*" * 50000,
    "entities": "&amp;" * 10000,
    "one far close": "<ref name=a>b " * 2000 + "</ref>",
    "one far table end": "\n{| a" * 2000 + "\n|}",
    "spaces in arguments": "{{lang|ru|" + " " * 20000 + "x}}",
    "formulas": "<math>" + "{x^" * 90 + "</math>",
    "short formulas": r"<math>\frac{a}{b}</math> " * 3000,
    "unread formulas": "A <math>\\sum</math> b. " * 3000,
    "unclosed formulas": "<math>a" * 3000,
    "code": "<code>" * 3000 + "</code>",
    "hollow quotes": "''{{x}}''" * 3000,
    "notes": "x<sup>[a]</sup>" * 3000,
    "stray link ends": "[http://a [1]] " * 2000,
    "poems": "<poem>" * 50 + "a\n" * 2000 + "</poem>" * 50,
    "conditions": "{{#switch:a" + "|b=c" * 5000 + "}}",
    "loose lines": "a ( , ; ) .\n" * 3000,
    "invisible": "a\u200b\u00ad" * 5000,
    "switches": "__A" * 5000,
    "sentences": "aa. " * 5000 + "<math>\\sum</math>",
    "links in links": "[[a|" * 1000 + "x" + "]]" * 1000,
}


@pytest.fixture
def no_collector():
    """A pass of the garbage collector over what other tests left takes 50 ms."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pages_take_time_linear_in_their_length(name):
    page = HOSTILE[name]
    seconds = []
    for times in (1, 4):
        start = time.process_time()
        clean(page * times)
        seconds.append(time.process_time() - start)
    # four times the length: a quadratic cleaner would take 16 times; below 20 ms it is noise
    assert seconds[1] < max(8 * seconds[0], 0.02)
    assert seconds[0] < 1


@pytest.mark.usefixtures("no_collector")
def test_many_bold_marks_on_one_line_take_time_linear_in_its_length():
    seconds = []
    for number in (16001, 64001):  # odd: the first that may be an apostrophe is looked for
        start = time.process_time()
        drop_emphasis("d'''África " * number + "''b")
        seconds.append(time.process_time() - start)
    assert seconds[1] < max(8 * seconds[0], 0.05)


MARKS = ["[[", "]]", "{{", "}}", "{|", "|}", "|", "\n", "<ref>", "</ref>", "<!--", "-->", "''", "==",
         "a", "ção ", "<sup>2</sup>", "(", ")", ",", "&lt;", "*", "<br/>", "Ficheiro:", "http://x "]  # fmt: skip


@given(st.lists(st.sampled_from(MARKS), max_size=60).map("".join))
def test_no_markup_is_left_of_any_mixture(wikitext):
    text = clean(wikitext)
    assert not [fault for fault in FAULT.findall(text) if fault in ("[[", "]]", "{{", "}}", "<!--")]
    assert text == text.strip()
    assert "\n\n" not in text


@given(st.text(alphabet="abc çãé\n", max_size=200))
def test_prose_keeps_every_word(prose):
    assert clean(prose).split() == prose.split()


@given(st.text(max_size=300))
def test_the_parser_takes_any_text(wikitext):
    strip_markup(wikitext, PT)
    clean(wikitext).encode("utf-8")
