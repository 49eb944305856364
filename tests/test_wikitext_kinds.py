"""Kinds of wikitext met on real pages, each in several languages: what a reader is shown."""

import re

import pytest

from gportuguese.wikitext import language_of, read_wikitext, wikitext_to_text
from gportuguese.wikitext.fields import fill

KINDS = {
    "names of languages": [
        ("pt", "'''Atenas''' ({{lang-grc|Ἀθῆναι||Athēnai}}) é a capital.",
         "Atenas (em grego clássico: Ἀθῆναι; transl.: Athēnai) é a capital."),
        ("pt", "O termo ({{langx|ru|text=Москва|translit=Moskva}}) surgiu.",
         "O termo (em russo: Москва; transl.: Moskva) surgiu."),
        ("en", "'''Vienna''' ({{lang-de|Wien}} {{IPA-de|viːn|}}) is old.", "Vienna (German: Wien) is old."),
        ("en", "'''Kyiv''' ({{langx|uk|Київ|Kyiv}}) lies here.",
         "Kyiv (Ukrainian: Київ, romanized: Kyiv) lies here."),
        ("es", "'''Cardiff''' ({{lang-cy|Caerdydd}}) es una ciudad.",
         "Cardiff (en galés: Caerdydd) es una ciudad."),
        ("fr", "'''Pékin''' ({{chinois|c=北京|p=Běijīng}}) est grande.",
         "Pékin (chinois : 北京 ; pinyin : Běijīng) est grande."),
        ("de", "'''Kairo''' ({{arS|القاهرة|d=al-Qāhira}}) ist groß.",
         "Kairo (arabisch القاهرة, DMG al-Qāhira) ist groß."),
    ],
    "exponents and powers of ten": [
        ("pt", "10<sup>&minus;3</sup> e 10<sup>&nbsp;6</sup> e (a+b)<sup>2</sup>", "10^−3 e 10^6 e (a+b)^2"),
        ("en", "6.02{{e|23}}, {{val|3.0|e=8|ul=m/s}}, {{10^|6}}", "6.02×10^23, 3.0×10^8 m/s, 10^6"),
        ("fr", "{{unité|6.02|e=23}}, {{x10|6}}, 10{{exp|6}}, 2{{e}} fois", "6,02×10^23, × 10^6, 10^6, 2e fois"),
        ("de", "{{ZahlExp|6,02|23}} und 10<sup>6,5</sup>", "6,02 · 10^23 und 10^6,5"),
        ("it", "u = {{M|3986|e=8||km}}", "u = 3986×10^8 km"),
        ("es", "unos {{esd|10<sup>6</sup>}} años", "unos 10^6 años"),
    ],
    "fractions and compound units": [
        ("pt", "custa 2{{frac|1|2}} e {{sfrac|1|3}}", "custa 2 1/2 e 1/3"),
        ("en", "5{{frac|3|4}} in, {{1/2}}, {{convert|5|ft|11|in|m}}, {{height|ft=6|in=2}}",
         "5 3/4 in, 1/2, 5 ft 11 in, 6 ft 2 in"),
        ("fr", "environ 3{{fraction|1|2}}", "environ 3 1/2"),
    ],
    "centuries, dates and ages": [
        ("es", "a finales del {{siglo|XIX||s}} y en el siglo {{siglo|XX}}", "a finales del siglo XIX y en el siglo XX"),
        ("fr", "{{s|I|er}}, {{-s-|II|e}}, {{sp-|XVIII|e|et|XIX|e|s}}, {{s2-|XV|e|XVI|e}}, {{IIe siècle av. J.-C.}}",
         "Ier siècle, IIe siècle av. J.-C., XVIIIe et XIXe siècles, XVe et XVIe siècles, IIe siècle av. J.-C."),
        ("fr", "le {{84e|congrès}} et le {{3e}}", "le 84e congrès et le 3e"),
        ("fr", "Né le {{date|1|mai|1900}}, élu le {{date-|1 6 1931}}, mort {{date-|en 1980}}.",
         "Né le 1er mai 1900, élu le 1er juin 1931, mort en 1980."),
        ("fr", "{{date|lundi 2 mars 1903|en sport}}, {{date||avril|1904}}, {{date de décès|3|mai|1905|1|juin|1850}}",
         "lundi 2 mars 1903, avril 1904, 3 mai 1905"),
        ("fr", "De {{heure|1}} à {{heure|6|15}}.", "De 1 h à 6 h 15."),
        ("de", "am {{JULGREGDATUM|5|3|1900}}", "am 5. März 1900"),
        ("en", "{{fl.|1520}}, {{reign|1500|1520}}, {{circa|1500|1520}}", "fl. 1520, r. 1500–1520, c. 1500 – c. 1520"),
        ("en", "aged {{age|1950|5|3|1990|5|2}} and {{age|1950|5|3|1990|5|3}}", "aged 39 and 40"),
        ("pt", "com {{Idade até data|3|5|1950|2|5|1990}} anos", "com 39 anos"),
        ("pt", "Nasceu aqui. Tem {{idade|3|5|1950}} anos. Fim.", "Nasceu aqui. Fim."),  # today's age is unknown
    ],
    "links to articles in other languages": [
        ("pt", "em {{ill|Nome|en|Name}}, {{ill|en|Name}}, {{Iwlink|fr|Nom|o nome}}", "em Nome, Name, o nome"),
        ("en", "in {{ill|Name|de|Der Name}}, {{ill|de|Local|Fern}}, {{ill|A|fr|B|lt=label}}", "in Name, Local, label"),
        ("es", "en {{ill|Nombre|en|Name}} y {{ill|en|Name}}", "en Nombre y Name"),
    ],
    "countries": [
        ("it", "{{Bandiera|Francia|nome}}, {{bandiera|ITA|nome}} e {{bandiera|ITA}} Rossi",
         "Francia, Italia e Rossi"),
        ("it", "Per {{NazNB|CA|GER}} si intende", "Per Germania si intende"),
        ("fr", "* {{France}} : Paris", "France : Paris"),
        ("en", "{{flagathlete|Ann|KEN}} beat {{fb|BRA}}", "Ann (KEN) beat Brazil"),
    ],
    "ships": [
        ("en", "{{ship||Titanic||2}}, {{ship|HMS|Hood|51|6}}, {{SMU|UB-1}}, the {{sclass|Nimitz|carrier}}",
         "Titanic, HMS Hood, SM UB-1, the Nimitz-class carrier"),
    ],
    "titles and abbreviations": [
        ("fr", "{{M.}} X, {{Mme|Y}}, {{n°|5}}, {{tome|II}}, {{p.|5}}, {{guil|mot}}, 1{{er}} mai",
         "M. X, Mme Y, nº 5, t. II, p. 5, « mot », 1er mai"),
        ("de", "{{SperrSchrift|weit}} und {{Anführungszeichen|nah}}", "weit und „nah“"),
    ],
    "parameters of a template on an article": [
        ("pt", "Texto {{{1|}}} fica, {{{nome|valor}}} e {{{2}}} fim.", "Texto fica, valor e fim."),
        ("en", "A {{{1|{{{2|b}}}}}} c {{nowrap|{{{x|d}}}}}.", "A b c d."),
    ],
    "what an argument shows does not split it": [
        ("pt", "{{nowrap|<math>E=mc^2</math>}}, {{nowrap|<math>|V|</math>}}, {{nowrap|a {{=}} b}}", "E=mc^2, |V|, a = b"),
        ("en", "{{code|x {{=}} 1}}, {{nowrap|[[A|y = 2]]}}, {{nowrap|<code>a | b</code>}}", "x = 1, y = 2, a | b"),
    ],
    "parser functions": [
        ("pt", "{{PLURAL:2|rio|rios}}, {{#expr:2+3*4}}, {{#ifexpr:1>2|a|b}}, {{#language:de}}, {{padleft:7|2}}",
         "rios, 14, b, alemão, 07"),
        ("fr", "{{plural:0|chat|chats}} {{#si:x|oui|non}}", "chat oui"),
        ("en", "{{plural:0|cat|cats}} [{{fullurl:X|action=edit}} edit] {{#tag:ref|note}}end", "cats edit end"),
        ("de", "Sie hat mit {{#expr:{{Metadaten X}}/2}} viel. Der Rest bleibt.", "Der Rest bleibt."),
    ],
    "inline code": [
        ("pt", "O comando <code><nowiki>a[i]</nowiki></code> lê.", "O comando a[i] lê."),
        ("pt", "Escreve-se <code><nowiki>{{x}}</nowiki></code> aqui. Fim.", "Fim."),
        ("de", "Mit <code>a[i] && b</code> endet es. Das Zeichen <code>&lt;br&gt;</code> nicht.", "Mit a[i] && b endet es."),
    ],
    "files in a namespace that no table names": [
        ("pt", "[[Fitxer:A.jpg|thumb|esquerra|Uma [[legenda]]]]O texto.", "O texto."),
        ("en", "[[Archivo:A.jpg|200px|Texto]]The text; [[Dune: Part|part]].", "The text; part."),
    ],
    "hidden text and variants": [
        ("en", 'At <span style="display:none">0042</span>42 km', "At 42 km"),
        ("zh", "-{zh-hans:软件;zh-hant:軟體}-好，-{H|zh:a;en:b}--{原文}-。", "软件好，原文。"),
    ],
    "coordinates": [
        ("en", "The cairn is at {{coord|56|4|9.5|N|3|27|W|type:landmark}} today.",
         "The cairn is at 56°04′09.5″N 3°27′W today."),
        ("it", "Il faro ({{Coord|-8.25|115.5|display=inline,title}}) è bianco.",
         "Il faro (8.25°S 115.5°E) è bianco."),
        ("es", "La ermita está en {{coord|40|30|N|3|5|W}}.", "La ermita está en 40°30′N 3°05′O."),
        ("en", "The hill{{coord|56|N|3|W|display=title}} is low.\n\n{{coord|56|N|3|W}}\n\nIt is green.",
         "The hill is low.\nIt is green."),
        ("en", "A ruin {{coord|x|y}} stands.", "A ruin stands."),
        ("pt", "A serra {{coord|40|N|8|W}} é alta.", "A serra é alta."),
    ],
    "heights, units and lists that a template holds": [
        ("de", "Der Ort ({{Höhe|412|DE-NHN}}, {{Höhe|1500|AT}}, {{Höhe|80}}) liegt hoch.",
         "Der Ort (412 m ü. NHN, 1.500 m ü. A., 80 m) liegt hoch."),
        ("de", "Die Stadt ist mit {{FRA|Ziel=Lyon}} befreundet, nicht mit {{FRA}}.",
         "Die Stadt ist mit Lyon befreundet, nicht mit Frankreich."),
        ("de", "{{RUS}}, {{ruS|Мост|Most}}", "Russland, russisch Мост Most"),
        ("de", "Partner sind:\n{{Mehrspaltige Liste|liste=\n{{ITA|Ziel=Bari}} (1960)<br />\n{{KOS}} (1970)}}\nEnde.",
         "Partner sind:\nBari (1960)\nKosovo (1970)\nEnde."),
        ("fr", "On compte {{unité|1200 hab./km 2}} et {{unité|7 km}}.", "On compte 1 200 hab./km^2 et 7 km."),
        ("fr", "L'étang fait {{unité|2500,5|m|2}} à {{tmp|4.5|°C}}.", "L'étang fait 2 500,5 m^2 à 4,5 °C."),
        ("es", "Mide unos 12{{esd}}km de largo.", "Mide unos 12 km de largo."),
        ("fr", "Les jumelages :\n\n{{colonnes|taille=20|\n* {{Jumelage|Lyon|France|année=1950|mois=mai|jour=1}}\n"
         "* {{Jumelage|Bari|Italie|année=1960}}\n* {{Jumelage|Gand}}}}",
         "Les jumelages :\nLyon (France) depuis le 1er mai 1950\nBari (Italie) depuis 1960\nGand"),
        ("fr", "Le port {{incise|très ancien}} dort ; la mer monte {{incise|parfois|stop}}.",
         "Le port – très ancien – dort ; la mer monte – parfois."),
        ("fr", "(pain, sel{{etc.}})", "(pain, sel, etc.)"),
    ],
    "quotations": [
        ("de", "Er rief:\n{{Zitat|Text=Festina lente.|Autor=N. N.|Übersetzung=Eile mit Weile.}}\nSo war es.",
         "Er rief:\n„Festina lente.“\n„Eile mit Weile.“\nSo war es."),
        ("it", "{{Citazione|Piove sul tetto,<br />\npiove sul prato.}}\n\nUna riga<br />\nche continua.",
         "Piove sul tetto,\npiove sul prato.\nUna riga che continua."),
    ],
    "footnotes between two sentences": [
        ("es", "Llovió mucho.<ref>Diario</ref>Nadie salió.<ref name=a/><ref name=b/>Luego nevó.",
         "Llovió mucho. Nadie salió. Luego nevó."),
        ("en", "The sea<ref>Log</ref>bed is old.<ref>Log</ref>", "The seabed is old."),
    ],
    "marks left by what was removed": [
        ("fr", "'''Gand''' (en néerlandais : {{MSAPI|ɣɛnt}}) est belle ; (voir : ici).", "Gand est belle ; (voir : ici)."),
        ("en", "Born ( – ), he said “ ” and « » here.", "Born, he said and here."),
        ("pt", "Um [[Rio], outro. O [sic] fica.\n\nO sinal &lt;br&gt; sai.", "Um Rio, outro. O [sic] fica.\nO sinal sai."),
        ("it", "{{Nota|<math>{{n!}\\over{k}}</math>}}Il testo.", "Il testo."),
    ],
    "formulas": [
        ("fr", "Soit <math>x \\in \\R</math> et <math>f\\colon \\N \\to \\Z</math>.", "Soit x ∈ R et f: N → Z."),
    ],
    "end matter": [
        ("fr", "Texte.\n== Articles connexes ==\n* a", "Texte."),
        ("pt", "Texto.\n== Ligações internas ==\n* a\n== Outros projetos ==\nFez mais.", "Texto.\nOutros projetos\nFez mais."),
        ("de", "Text.\n== Literatur und Weblinks ==\n* a\n== Belege ==\n* b", "Text."),
        ("es", "Texto.\n== Lecturas adicionales ==\n* a\n== Fuentes ==\n* b", "Texto."),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_reads_as_it_is_shown(kind):
    wrong = [
        (wikitext, got, wanted)
        for code, wikitext, wanted in KINDS[kind]
        if (got := wikitext_to_text(wikitext, "Título", language_of(code))) != wanted
    ]
    assert not wrong


def test_sentences_without_their_number_are_counted():
    page = read_wikitext("Tem {{#expr:x}} casas. Fim.", "T", language_of("pt"))
    assert page == ("Fim.", 1)


@pytest.mark.parametrize(
    ("pattern", "arguments", "wanted"),
    [
        ("{if:2|country:1}", ["ITA", "x"], "Itália"),
        ("{if:2|country:1}", ["ITA"], ""),
        ("{if:2|século }{1}", ["XX", "s"], "século XX"),
        ("{1}{if:2=|, sim}{if:2=x|, não}", ["a"], "a, sim"),
        ("{1}{if:2=|, sim}{if:2=x|, não}", ["a", "x"], "a, não"),
        ("{1}{if:2=|, sim}{if:2=x|, não}", ["a", "y"], "a"),
        ("{1}{2|'e'} fim", ["a"], "ae fim"),
        ("[{1}: ]{month:2}", ["", "5"], "maio"),
    ],
)
def test_fields_of_a_pattern(pattern, arguments, wanted):
    assert fill(pattern, arguments, language_of("pt")) == wanted


READ = {  # found by reading cleaned pages beside their wikitext
    "units of measure by their codes": [
        ("en", "The hall has {{convert|1200|sqft|m2|order=flip}} at {{convert|-4|C}} to {{cvt|7|-|9|C-change}}.",
         "The hall has 1,200 sq ft at −4 °C to 7–9 °C."),
        ("en", "It left {{convert|3.5e6|km2}} and {{convert|2|e6acre}}, {{convert|80|lbft|Nm}}, {{convert|30|mpgimp}}.",
         "It left 3.5×10^6 km2 and 2 million acre, 80 lb⋅ft, 30 mpg-imp."),
        ("en", "A {{convert|12|km}} walk in {{convert|5|lb|oz}} boots.", "A 12 km walk in 5 lb boots."),
    ],
    "dates of what is said": [
        ("en", "It has {{as of|2019|lc=y}} ten shops; {{As of|2011|08|09}} two. {{As of|2020|May|post=,}} none.",
         "It has as of 2019 ten shops; As of 9 August 2011 two. As of May 2020, none."),
        ("en", "The mill (second {{as of|2012|alt=by sales in 2012|post=),}} closed {{as of|since=y|2010|lc=y}}.",
         "The mill (second by sales in 2012), closed since 2010."),
        ("en", "On {{as of|2004|3|5|df=US|bare=y}} it rained.", "On March 5, 2004 it rained."),
    ],
    "today's price": [
        ("en", "It cost $4 (${{Format price|{{Inflation|US|4|1901}}}} today) and sold well. It closed.",
         "It cost $4 and sold well. It closed."),
        ("en", "It cost ${{Inflation|US|4|1901}} in all. It closed.", "It closed."),
    ],
    "dashes and names of programs": [
        ("en", "From 1980{{endash}}1990 and in {{dash year|1943|1945}} with {{TeX}} ({{LaTeX}}).",
         "From 1980–1990 and in 1943–1945 with TeX (LaTeX)."),
        ("it", "Un archivio [[TeX|{{TeX}}]] libero.", "Un archivio TeX libero."),
    ],
    "words of Chinese characters": [
        ("en", "The sign {{linktext|山|川}} and {{linktext|green|house}}.", "The sign 山川 and green house."),
    ],
    "numbers and names in Italian": [
        ("it", "Ha {{numero|45120}} abitanti (numero CAS {{CAS|64-17-5}}).", "Ha 45 120 abitanti (numero CAS 64-17-5)."),
        ("it", "La rupe (in inglese ''Rock'', {{Link audio|rock.ogg|ascolta}}) è alta.", "La rupe (in inglese Rock) è alta."),
        ("it", "Il ''prato'' ({{russo|луг|''lug''}}) è verde.", "Il prato (in russo луг, lug) è verde."),
        ("it", "Vi sono {{Progetto:Amministrazioni/Comuni italiani/numero}} comuni. Fine.", "Fine."),
    ],
    "points of omission": [
        ("en", "He saw \"a dog. ... It barked\" and one, two, ... ten ''...cats''.",
         'He saw "a dog. ... It barked" and one, two, ... ten ...cats.'),
    ],
    "formulas that follow each other": [
        ("it", "Vale:\n:<math>a=b</math>\nSi ha:\n:<math>\\binom{a}{b}</math>\ne quindi:\n:<math>\\binom{c}{d}</math>\n",
         "Vale:\na=b"),
    ],
    "the first sentence of an Italian biography": [
        ("it", "{{Bio\n|Nome = Ugo\n|Cognome = Stelli\n|Sesso = M\n|LuogoNascita = Pavia\n|LuogoNascitaLink = Pavia\n"
         "|GiornoMeseNascita = 3 luglio\n|AnnoNascita = 1850\n|LuogoMorte = Roma\n|GiornoMeseMorte = 1º marzo\n"
         "|AnnoMorte = 1911\n|Epoca = 1800\n|Attività = scultore\n|Attività2 = pittore\n|Nazionalità = italiano\n"
         "|PostNazionalità = , allievo di [[Rea (artista)|Rea]]\n|Immagine = x.jpg\n}}\nVisse a lungo.",
         "Ugo Stelli (Pavia, 3 luglio 1850 – Roma, 1º marzo 1911) è stato uno scultore e pittore italiano, "
         "allievo di Rea. Visse a lungo."),
        ("it", "{{Bio|Nome=Ida|Cognome=Lai|PostCognomeVirgola=detta '''Idina'''|Sesso=F|AnnoNascita=1990"
         "|Attività=attrice|Attività2=regista|Attività3=editrice|Nazionalità=svedese"
         "|NazionalitàNaturalizzato=danese}}",
         "Ida Lai, detta Idina (1990) è un'attrice, regista ed editrice svedese naturalizzata danese."),
        ("it", "{{Bio|Titolo=Sir|Nome=Al|Cognome=Orr|PreData=pronuncia {{IPA|[x]}}|LuogoNascita=Bath|AnnoMorte=?"
         "|PreAttività=fu il terzo|Attività=re|AttivitàAltre={{sp}}e poeta}}",
         "Sir Al Orr (Bath – …) fu il terzo re e poeta."),
        ("it", "{{Bio|Titolo=I fratelli|Nome=Leo|AnnoNascita=1901|FineIncipit=e}}\n"
         "{{Bio|Nome=Pio|AnnoNascita=1905|FineIncipit=furono due attori}}",
         "I fratelli Leo (1901) e Pio (1905) furono due attori."),
        ("it", "{{Bio|Cognome=|Immagine=x.jpg}}\nTesto.", "Testo."),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_what_reading_found(kind):
    wrong = [
        (wikitext, got, wanted)
        for code, wikitext, wanted in READ[kind]
        if (got := wikitext_to_text(wikitext, "Título", language_of(code))) != wanted
    ]
    assert not wrong


@pytest.mark.parametrize("wikitext", ["a[,,,,,,,,[\n*&lt;t", "{'{{}}''''{a\n\n<g"])
def test_signs_that_removed_markup_kept_apart_do_not_become_markup(wikitext):
    text = wikitext_to_text(wikitext, "Título", language_of("it"))
    assert not re.search(r"\[\[|\{\{", text)
