"""The exported folder: transformers loads it, its formats agree, its card states the facts."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from gportuguese import Pipeline, causal_lm, init_world, load_config, tokenizer
from gportuguese.artifacts import Artifact
from gportuguese.config import FORMATS, asset_path
from gportuguese.export import ExportError, card, gguf, onnx
from gportuguese.export.checking import check
from tests.conftest import sentence, tiny_settings
from tests.test_align import byte_tokenizer

PROMPT = torch.tensor([[5, 9, 250, 17]])


@pytest.fixture(scope="module")
def settings(tiny_dump, tiny_stages, tmp_path_factory):
    """The settings of a tiny run; all tests here share its stages."""
    folder = shutil.copytree(tiny_stages, tmp_path_factory.mktemp("run") / "artifacts")
    return tiny_settings(tiny_dump, folder)


def exported(settings, *more):
    config = load_config(None, (*settings, *more))
    pipeline = Pipeline(config)
    return pipeline, pipeline.build("export", init_world(config.runtime))


@pytest.fixture(scope="module")
def folder(settings):
    """The exported folder of a tiny run, with every format."""
    return exported(settings, f"export.formats=[{', '.join(FORMATS)}]")


def card_of(artifact):
    return ModelCard.load(artifact.folder / "README.md")


def test_the_folder_contains_the_trained_model_in_every_format(folder):
    pipeline, artifact = folder
    trained = causal_lm.load(pipeline.open("train").folder / "model").eval()
    ids_BT = torch.randint(300, (2, 16))
    wanted = trained(ids_BT).logits
    for safe in (True, False):
        model = AutoModelForCausalLM.from_pretrained(artifact.folder, use_safetensors=safe).eval()
        assert torch.equal(model(ids_BT).logits, wanted)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert set(artifact.facts["differences"]) == {"safetensors", *FORMATS}
    for name in FORMATS:
        assert artifact.facts["differences"][name]["log_probability"] < 1e-2
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "model-q8_0.gguf", "model.onnx"):
        assert name in artifact.manifest["files"]


def test_old_versions_can_read_every_saved_tokenizer(folder):
    pipeline, artifact = folder
    training = pipeline.open("train").folder
    for place in (pipeline.open("tokenizer").folder, training / "model", artifact.folder):
        merges = json.loads((place / "tokenizer.json").read_text())["model"]["merges"]
        assert merges == (place / "merges.txt").read_text().splitlines()[1:]
        config = json.loads((place / "tokenizer_config.json").read_text())
        assert config["clean_up_tokenization_spaces"] is False


def test_generation_and_tokenizer_agree_on_the_special_tokens(folder):
    _, artifact = folder
    generation = GenerationConfig.from_pretrained(artifact.folder)
    bpe = AutoTokenizer.from_pretrained(artifact.folder)
    assert generation.eos_token_id == generation.pad_token_id == bpe.eos_token_id == 299
    assert (generation.do_sample, generation.top_k, generation.max_new_tokens) == (True, 40, 16)
    model = AutoModelForCausalLM.from_pretrained(artifact.folder)
    torch.manual_seed(0)
    inputs = bpe("o rio", return_tensors="pt")
    assert model.generate(**inputs, max_new_tokens=5).shape[1] <= inputs["input_ids"].shape[1] + 5


def test_the_card_states_the_measures_of_the_run(folder):
    pipeline, artifact = folder
    found = card_of(artifact)
    measured = pipeline.open("evaluate").facts["measures"]
    for split, name in (("valid", "validation"), ("test", "test")):
        values = measured[split]
        assert f"| {name} | {values['loss']:.4f} | {100 * values['accuracy']:.2f} % |" in found.text
        low, high = values["bits_per_byte_interval"]
        assert f"| {values['bits_per_byte']:.4f} [{low:.4f}, {high:.4f}] |" in found.text
        assert f"{values['documents']} for {name}" in found.text
        change = pipeline.open("evaluate").facts["changes"][split]["bits_per_byte"]
        assert re.search(
            rf"{change:+.4f} \[.{{16}}\] on {name} text".replace("+", r"\+"), found.text
        )
    assert found.data.language == "pt"
    assert found.data.pipeline_tag == "text-generation"
    assert [each["text"] for each in found.data.widget] == ["o rio"]
    for row in (pipeline.open("train").folder / "epochs.csv").read_text().splitlines()[1:]:
        epoch, phase = row.split(",")[:2]
        assert f"| {epoch} | {phase} |" in found.text
    documents = pipeline.open("corpus").facts["documents"]["train"]
    assert f"{documents} documents for training" in found.text
    assert f"{documents} documentos de treinamento" in found.text
    assert "grad_clip: null" in found.text
    assert not re.search(r"\{[{%]|None|Undefined", found.text)


def test_the_card_counts_every_parameter_once(folder, settings):
    """Includes frozen parameters, and counts the head and the embeddings, which are tied, once."""
    _, artifact = folder
    model = causal_lm.load(artifact.folder)
    number = sum(p.numel() for p in set(model.parameters()))
    assert artifact.facts["parameters"] == number
    assert f"A causal language model with {number:,} parameters" in card_of(artifact).text
    pipeline, frozen = exported(
        settings, "train.phases=[{name: top, epochs: 1, trainable_groups: 1, lr_max: 0.01}]"
    )
    assert max(pipeline.open("train").facts["trainable_parameters"].values()) < number
    assert f"A causal language model with {number:,} parameters" in card_of(frozen).text


def test_the_card_of_a_model_trained_from_random_weights_names_no_base(folder):
    found = card_of(folder[1])
    assert found.data.base_model is None
    assert "vocabulary-transfer" not in found.data.tags
    assert "trained from random weights with" in found.text
    assert "treinado a partir de pesos aleatórios" in found.text
    assert not re.search(
        "embeddings transferred|embeddings\\* transferidos|modelo base", found.text
    )


def test_the_card_of_a_dump_names_only_that_dump(folder):
    pipeline, artifact = folder
    found = card_of(artifact)
    receipt = pipeline.open("dump").facts
    assert f"the MediaWiki dump `tiny.xml.bz2`, SHA-256 `{receipt['sha256'][:16]}" in found.text
    assert (found.data.datasets, found.data.eval_results) == (None, None)
    assert not re.search(r"(?i)wikipedia|wikimedia|encyclop", found.text + str(found.data))


DEMO = (
    "tokenizer.vocab_size=1000",
    "train.phases=[{name: top, epochs: 1, trainable_groups: 2, lr_max: 0.001}]",
    "train.epoch_tokens=2048",
    "train.valid_tokens=256",
    "evaluate={tokens: 256, prompts: [Lisboa], sample_tokens: 4}",
    "runtime.device=cpu",
)


def test_the_card_of_the_demo_names_the_packages_encyclopedia(tmp_path):
    _, artifact = exported((f"runtime.artifacts_dir={tmp_path}", *DEMO))
    found = card_of(artifact)
    assert "the small encyclopedia `demo-ptwiki.xml.bz2` shipped with gportuguese" in found.text
    assert (found.data.datasets, found.data.eval_results) == (None, None)
    assert not re.search("(?i)wikipedia|wikimedia", found.text + str(found.data))
    assert "# demo" in found.text
    assert "fine-tuned from `english-nano` with" in found.text
    assert found.data.base_model is None
    assert found.data.language == "pt"


def test_the_card_names_wiki_and_date_of_a_fetched_dump(folder):
    pipeline, artifact = folder
    inputs = {
        name: pipeline.open(name) for name in ("corpus", "tokens", "align", "train", "evaluate")
    }
    section = {"source": None, "wiki": "ptwiki", "date": "latest", "mirror": None}
    facts = {"date": "20260601", "sha256": "ab" * 32}
    inputs["dump"] = Artifact(artifact.folder, {"section": section, "facts": facts})
    corpus_facts = {**inputs["corpus"].facts, "language": "be-tarask"}
    inputs["corpus"] = Artifact(inputs["corpus"].folder, {"facts": corpus_facts})
    made = card.make(pipeline.config, inputs, artifact.facts, ["model.safetensors"])
    assert "the Wikimedia dump `ptwiki` of 2026-06-01, SHA-256 `abab" in made.text
    assert made.data.datasets is None
    assert made.data.language == "be"
    measured = pipeline.open("evaluate").facts["measures"]
    assert {
        (each.dataset_type, each.dataset_split, each.metric_type): each.metric_value
        for each in made.data.eval_results
    } == {
        ("ptwiki-20260601", "validation" if split == "valid" else split, metric): round(value, 6)
        for split, values in measured.items()
        for metric, value in values.items()
        if metric in ("loss", "accuracy", "perplexity", "bits_per_byte")
    }


def test_a_renamed_run_gets_a_new_card_and_is_not_trained_again(settings):
    pipeline, before = exported(settings)
    renamed, after = exported(settings, "name=meu-modelo")
    assert renamed.folder("evaluate") == pipeline.folder("evaluate")
    assert before.folder != after.folder
    assert before.manifest["name"] != after.manifest["name"] == "meu-modelo"
    text = (after.folder / "README.md").read_text(encoding="utf-8")
    assert "# meu-modelo\n" in text
    assert 'from_pretrained("user/meu-modelo")' in text
    assert before.manifest["name"] not in text


def test_a_renamed_base_gets_a_new_card(settings, tmp_path):
    """The digests of the other stages depend only on the base's content."""
    for name in ("anna", "bruno"):
        shutil.copytree(asset_path("english-nano"), tmp_path / name)
    exported(settings)  # the digests need the dump's hash
    anna, bruno = (
        Pipeline(load_config(None, (*settings, "align.method=mean", f"align.base={base}")))
        for base in (tmp_path / "anna", tmp_path / "bruno")
    )
    assert anna.folder("train") == bruno.folder("train")
    assert anna.folder("export") != bruno.folder("export")


def test_the_card_of_own_documents_does_not_name_wikipedia(settings, tmp_path):
    lines = [json.dumps({"id": n, "text": sentence(n, 120)}) for n in range(120)]
    (tmp_path / "own.jsonl").write_text("\n".join(lines), encoding="utf-8")
    own = ("dump.source=null", f"corpus.documents={tmp_path / 'own.jsonl'}", "corpus.dedup=off")
    _, artifact = exported(settings, *own)
    found = card_of(artifact)
    assert found.data.language is None
    assert (found.data.datasets, found.data.eval_results) == (None, None)
    assert not re.search(r"(?i)wikip|encyclop|any held-out document|nenhum documento", found.text)
    _, artifact = exported(settings, *own, "export={language: it, dataset: me/mine}")
    found = card_of(artifact)
    assert (found.data.language, found.data.datasets) == ("it", ["me/mine"])
    assert {result.dataset_type for result in found.data.eval_results} == {"me/mine"}


def test_export_language_overrides_the_corpus_language():
    from gportuguese.artifacts import Artifact
    from gportuguese.export.card import _language

    inputs = {"corpus": Artifact(Path("corpus"), {"facts": {"language": "gl"}})}
    assert _language(load_config(None), inputs) == "gl"
    assert _language(load_config(None, ("export.language=pt",)), inputs) == "pt"


def test_the_log_reports_each_format_when_written_and_when_checked(settings, caplog):
    caplog.set_level(logging.INFO, "gportuguese")
    exported(settings, "export.formats=[bin, gguf-f16]", "name=logged")
    said = [
        line for line in caplog.messages if re.match("export: .* (writing|agrees)|export: wr", line)
    ]
    wanted = []
    for name in ("safetensors", "bin", "gguf-f16"):
        wanted += [f"export: writing {name}", f"export: {name} agrees with PyTorch, "]
    assert len(said) == len(wanted)
    assert all(map(str.startswith, said, wanted))


def test_hub_ids_are_recognized():
    for base, is_id in (("gpt2", True), ("openai-community/gpt2", True), ("package:x", False),
                        ("/folder/of/mine", False), ("tests", False), ("a.gguf", False)):  # fmt: skip
        assert card._is_hub_id(base) == is_id, base


def gpt2(positions=32):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=264, n_embd=64, n_layer=3, n_head=2, n_positions=positions, bos_token_id=263,
        eos_token_id=263,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():  # biases start at zero, which would hide a lost bias
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_transformers_reads_the_same_model_and_tokenizer_from_gguf(tmp_path, kind):
    """transformers is an independent reader; it assumes 1024 positions."""
    model, bpe = gpt2(1024), byte_tokenizer(["casa", "mar"])
    assert len(bpe) == model.config.vocab_size
    model.save_pretrained(tmp_path)
    tokenizer.save(bpe, tmp_path)
    path = tmp_path / f"model-{kind}.gguf"
    gguf.write(model, tmp_path, path, kind)
    twin, twin_bpe = causal_lm.load_with_tokenizer(str(path))
    wanted, got = model(PROMPT).logits.log_softmax(-1), twin.eval()(PROMPT).logits.log_softmax(-1)
    torch.testing.assert_close(
        got, wanted, rtol=0, atol={"f32": 1e-5, "f16": 5e-3, "q8_0": 0.1}[kind]
    )
    text = "A casa é do mar, coração! 1998"
    assert twin_bpe(text)["input_ids"] == bpe(text)["input_ids"]


def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=264, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=2, max_position_embeddings=32, bos_token_id=263, eos_token_id=263,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("kind", ["gpt2", pytest.param("llama", marks=pytest.mark.slow)])
def test_onnx_accepts_any_batch_length_and_padding_side(folder, tmp_path, kind):
    """Each prompt of a padded batch gets the same logits as alone in PyTorch."""
    if kind == "gpt2":  # exporting takes seconds, so this is the file of the tiny run
        path = folder[1].folder
        model, logits = causal_lm.load(path).eval(), onnx.reader(path / "model.onnx")
        biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
        assert all((bias.abs() > 1e-3).any() for bias in biases)  # zeros would hide a lost bias
    else:
        model = llama()
        logits = onnx.write(model, tmp_path / "model.onnx")
    for shape in ((1, 1), (3, 5), (2, 32)):
        ids_BT = torch.randint(264, shape)
        torch.testing.assert_close(logits(ids_BT), model(ids_BT).logits, rtol=0, atol=1e-4)
    prompts = [torch.randint(263, (length,)) for length in (3, 11, 7)]
    for side in ("left", "right"):
        ids_BT = pad_sequence(prompts, True, padding_value=263, padding_side=side)
        mask_BT = pad_sequence([torch.ones_like(ids) for ids in prompts], True, padding_side=side)
        for row_TV, mask_T, ids_T in zip(logits(ids_BT, mask_BT), mask_BT, prompts, strict=True):
            wanted = model(ids_T[None]).logits[0]
            torch.testing.assert_close(row_TV[mask_T.bool()], wanted, rtol=0, atol=1e-4)


def test_a_format_that_differs_from_the_model_is_rejected():
    model, other = gpt2(), gpt2()
    with torch.no_grad():
        other.transformer.wte.weight[7] += 0.1
    with pytest.raises(ExportError, match="gguf-f32: log-probabilities differ by up to"):
        check("gguf-f32", model, [PROMPT], lambda ids_BT: other(ids_BT).logits)
    with pytest.raises(ExportError, match="differ by up to nan"):
        check("bin", model, [PROMPT], lambda ids_BT: model(ids_BT).logits * float("nan"))
    assert check("bin", model, [PROMPT], lambda ids_BT: model(ids_BT).logits) == {
        "log_probability": 0.0,
        "same_greedy_tokens": True,
    }


def test_gguf_rejects_other_architectures_with_advice(tmp_path):
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=3,
        num_attention_heads=2,
    )  # fmt: skip
    with pytest.raises(ExportError, match="convert_hf_to_gguf.py"):
        gguf.write(LlamaForCausalLM(config), tmp_path, tmp_path / "model.gguf", "f32")


def test_another_format_changes_the_export_digest_and_reuses_the_training(settings):
    pipeline, plain = exported(settings)
    _, more = exported(settings, "export.formats=[bin]")
    assert plain.digest != more.digest
    assert json.loads((more.folder / "manifest.json").read_text())["inputs"]["train"] == (
        pipeline.open("train").digest
    )
