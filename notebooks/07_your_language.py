# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # 7. Your own language
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/gportuguese/gportuguese/blob/main/notebooks/07_your_language.ipynb)
#
# **You learn** to take the pipeline to another language, here Italian: look at a dump, clean its pages, write a config,
# train, or bring your own documents, and plan the real run. **Time**: a minute on two CPU cores, without a network.
#
# The text is a dump of ten short Italian pages, written below. That is enough to see every step and far too little for a
# model; at the end you find what to change for the real Wikipedia.

# %%
from importlib.util import find_spec

from IPython import get_ipython

if find_spec("gportuguese") is None:  # on Colab
    source = "git+https://github.com/gportuguese/gportuguese"
    get_ipython().run_line_magic(
        "pip", f"install -q 'gportuguese[vectors] @ {source}'"
    )

# %%
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow.parquet as pq
from IPython.display import Image, Markdown

from gportuguese import ConfigError, Pipeline, load_config
from gportuguese.corpus.survey import survey
from gportuguese.dump import read_header, read_pages
from gportuguese.epochs import epochs_markdown
from gportuguese.wikitext import language_of, wikitext_to_text

# %% [markdown]
# ## A dump
# Wikimedia publishes a dump of every Wikipedia each month. `dump.wiki: itwiki` fetches the Italian one. Its pages look like these:

# %%
PAGES = {
    "Lago di Como": """{{Infobox lago|nome=Lago di Como|superficie={{M|146|u=km²}}}}
Il '''lago di Como''', detto anche '''Lario''', è un [[lago]] della [[Lombardia]]. È profondo {{M|410|u=m}} ed è uno dei laghi più profondi d'[[Europa]].<ref>Carta dei laghi, 1998.</ref> Ha la forma di una ipsilon rovesciata: un ramo scende verso [[Como]], l'altro verso [[Lecco]].
== Clima ==
Il lago tiene mite il clima delle sue rive. Per questo vi crescono l'ulivo, il limone e la palma, che poco lontano, nelle valli, non resisterebbero all'inverno. Al mattino soffia un vento da nord, il pomeriggio un vento da sud.
== Note ==
<references />""",
    "Pane": """[[File:Pane.jpg|thumb|Una pagnotta]]
Il '''pane''' è un alimento che si ottiene cuocendo nel forno un impasto di farina, acqua e sale, di solito fatto crescere con il [[lievito]]. È uno dei cibi più antichi del mondo.
== Lavorazione ==
La farina si mescola con l'acqua e con il lievito. L'impasto riposa alcune ore, perché il lievito produca il gas che lo gonfia. Poi si dà forma alle pagnotte, che riposano ancora e infine vanno nel forno molto caldo.
* pane bianco
* pane integrale
== Voci correlate ==
* [[Farina]]""",
    "Orologio": """L<nowiki>'</nowiki>'''orologio''' è uno strumento che misura il tempo. I primi orologi erano meridiane: l'ombra di un'asta, mossa dal sole, segnava le ore su una pietra. Di notte si usavano orologi ad acqua, nei quali il livello dell'acqua scendeva piano.
Nel [[XIV secolo]] apparvero sulle torri delle città gli orologi meccanici, mossi da un peso. Il pendolo, studiato da [[Galileo Galilei|Galileo]], li rese molto più precisi. Oggi la maggior parte degli orologi conta le vibrazioni di un piccolo cristallo di [[quarzo]].""",
    "Olivo": """{{Tassobox|nome=Olivo|genere=Olea}}
L<nowiki>'</nowiki>'''olivo''' è un albero da frutto che vive molto a lungo: alcuni esemplari hanno più di mille anni. Ama il sole e i terreni asciutti, e cresce in tutti i paesi del [[Mar Mediterraneo|Mediterraneo]]. I suoi frutti, le olive, si raccolgono in autunno.
== Olio ==
Dalle olive si ricava l'olio. Le olive si lavano, si frangono e si pressano; il liquido che ne esce si separa in acqua e olio. Servono circa cinque chili di olive per un litro d'olio.
== Bibliografia ==
* G. Rossi, ''L'olivo'', 2001.""",
    "Luna": """La '''Luna''' è il solo satellite naturale della [[Terra]]. Gira intorno alla Terra in circa ventisette giorni e le mostra sempre la stessa faccia. La sua luce è quella del [[Sole]], che la sua superficie riflette.
== Fasi ==
Secondo la sua posizione, la Luna si vede piena, a metà o come una falce sottile. Quando passa tra la Terra e il Sole si ha un'eclissi di Sole; quando entra nell'ombra della Terra si ha un'eclissi di Luna.
== Maree ==
L'attrazione della Luna solleva l'acqua dei mari: due volte al giorno la marea sale, e due volte scende.""",
    "Carta": """La '''carta''' è un materiale sottile fatto di fibre vegetali. Fu inventata in [[Cina]] circa duemila anni fa e arrivò in Europa attraverso il mondo arabo. A [[Fabriano]] si fabbrica carta dal [[XIII secolo]].
Le fibre, oggi per lo più di legno, si mescolano con molta acqua. La pasta si stende su una rete, l'acqua scola via, e le fibre restano unite in un foglio che poi si pressa e si asciuga. La carta usata si può raccogliere e trasformare in carta nuova.""",
    "Violino": """Il '''violino''' è uno strumento musicale a quattro corde. Si suona con un arco, che si passa sulle corde, oppure pizzicandole con le dita. È il più piccolo e il più acuto della sua famiglia, alla quale appartengono anche la viola e il violoncello.
== Storia ==
I violini più famosi furono costruiti a [[Cremona]] tra il [[XVI secolo|Cinquecento]] e il Settecento dalle famiglie Amati, Guarneri e Stradivari. Molti di questi strumenti si suonano ancora oggi, e il loro suono è molto apprezzato.""",
    "Formica": """Le '''formiche''' sono insetti che vivono in società. In un formicaio ci sono una o più regine, che depongono le uova, e molte operaie, che cercano il cibo, curano le larve e difendono il nido. Una colonia può avere da poche decine a molti milioni di individui.
Le formiche comunicano con sostanze odorose: chi trova del cibo lascia sul terreno una traccia, e le altre la seguono. Alcune specie allevano afidi, altre coltivano funghi nel loro nido.""",
    "Ponte": """Un '''ponte''' è una costruzione che permette a una strada o a una ferrovia di superare un fiume, una valle o un'altra strada. I ponti più semplici sono travi appoggiate su due sostegni. Gli antichi [[Impero romano|Romani]] costruivano ponti ad arco in pietra, alcuni dei quali si usano ancora.
I ponti più lunghi sono sospesi: la strada è appesa a cavi d'acciaio, che passano sopra due torri alte e sono fissati nel terreno alle due estremità.""",
    "Porto (disambigua)": "{{Disambigua}}\n'''Porto''' può indicare:\n* un luogo per le navi\n* [[Porto (Portogallo)]]",
}  # fmt: skip
xml = "".join(
    f"<page><title>{title}</title><ns>0</ns><id>{number}</id><revision><id>{number}</id>"
    f"<text>{escape(wikitext)}</text></revision></page>\n"
    for number, (title, wikitext) in enumerate(PAGES.items(), 1)
)
dump = Path("mini-itwiki.xml")
dump.write_text(
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="it">\n'
    '<siteinfo><namespaces><namespace key="0" /><namespace key="6">File</namespace></namespaces></siteinfo>\n'
    f"{xml}</mediawiki>\n",
    encoding="utf-8",
)
print(f"{dump}: {len(PAGES)} pages")

# %% [markdown]
# ## Look at it first
# Cleaning works in any language. A table for the language says which headings are end matter and which templates carry
# words; six languages have one, and others use the English one. `survey` shows what a table should name.
# On the command line: `gpt-pt survey itwiki-latest-pages-articles.xml.bz2`.

# %%
print(survey(dump, num_pages=100, num_names=6))

# %% [markdown]
# *Note*, *Voci correlate* and *Bibliografia* are known as end matter, so their sections are dropped. *Disambigua* is listed
# because no table says which words it leaves. It needs none: the table names it as the template of
# disambiguation pages, and those are dropped whole. On a real dump, look up the commonest names of both lists
# ([how to write a table](https://github.com/gportuguese/gportuguese/blob/main/docs/languages.md)).

# %%
page = next(read_pages(dump))
italian = language_of("it", read_header(dump).namespaces)
print(
    page.wikitext,
    wikitext_to_text(page.wikitext, page.title, italian),
    sep="\n\n--- becomes ---\n\n",
)

# %% [markdown]
# ## A config
# Only the name has no default. The rest makes the run small enough for ten pages: a small vocabulary, short blocks, the packaged
# English model as the base.

# %%
config_file = Path("italian.yaml")
config_file.write_text(
    """\
name: italian
runtime: {artifacts_dir: artifacts-italian, micro_batch_size: 4}
dump: {source: mini-itwiki.xml}
corpus: {min_chars: 300, valid_per_mille: 250, test_per_mille: 0}
tokenizer: {vocab_size: 400}
tokens: {block_size: 32}
align: {base: "package:english-nano", method: pieces}
train:
  global_batch_size: 4
  epoch_tokens: 4096
  phases:
    - {name: embeddings, epochs: 2, trainable_groups: 1, lr_max: 5.0e-3, lr_ratio: 1}
    - {name: all, epochs: 3, trainable_groups: 4, lr_max: 1.0e-3}
evaluate: {sample_tokens: 20}
""",
    encoding="utf-8",
)
config = load_config(config_file)
pipeline = Pipeline(config)
report = pipeline.build("evaluate")
facts = pipeline.open("corpus").facts
facts["documents"], facts["dropped"]

# %% [markdown]
# A mistake in a config is found before anything runs:

# %%
try:
    load_config(config_file, ("train.phases.0.epoch=2", "corpus.min_chars=many"))
except ConfigError as error:
    print(error)

# %%
Markdown(epochs_markdown(pipeline.open("train")))

# %%
Image(report.folder / "curves.png", width=600)

# %% [markdown]
# The model learns its six pages by heart: the training loss keeps falling, while on the held-out pages it rises
# after the first epoch. Only more text helps against that. The samples show some Italian words and endings, and
# whole pieces of the six pages; their prompts are the Italian ones that come with the package.

# %% tags=["varies"]
Markdown(
    (report.folder / "samples.md").read_text(encoding="utf-8").partition("\n")[2]
)

# %% [markdown]
# ## Your own documents
# Instead of a dump, `corpus.documents` takes a folder of `.txt`, `.jsonl` or `.parquet` files. Here the same pages as
# text files:

# %%
texts = Path("texts")
texts.mkdir(exist_ok=True)
for page in read_pages(dump):
    text = wikitext_to_text(page.wikitext, page.title, italian)
    (texts / f"{page.title}.txt").write_text(text, encoding="utf-8")

changes = (
    "name=own",
    "dump.source=null",
    "corpus.documents=texts",
    "corpus.language=it",
)
own = load_config(config_file, changes)
artifact = Pipeline(own).build("corpus")
artifact.facts["documents"], artifact.facts["dropped"]

# %%
rows = pq.read_table(artifact.folder / "train.parquet").to_pandas()
rows.assign(text=rows.text.str.slice(0, 40) + "...").head(3)

# %% [markdown]
# ## The real run
# For a GPU, start from the config of your card and change the language. Before it starts, `plan` estimates what the run
# needs; its figures are estimates:

# %% tags=["varies"]
# !gpt-pt plan --config t4 --set name=it --set dump.wiki=itwiki --no-measure 2>&1 | cat

# %% [markdown]
#     gpt-pt train --config t4 --set name=it --set dump.wiki=itwiki
#     gpt-pt evaluate --config t4 --set name=it --set dump.wiki=itwiki
#     gpt-pt generate artifacts "La capitale d'Italia è"
#
# An interrupted run resumes with the same command. [00_colab](00_colab.ipynb) does this on a free GPU.
