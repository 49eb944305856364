"""The exported folder: what transformers makes of it, its formats and its card."""

import json
import re

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

from gportuguese import Pipeline, init_world, load_config, tokenizer
from gportuguese import model as models
from gportuguese.export import ExportError, gguf, onnx
from gportuguese.export.checking import check
from tests.conftest import sentence
from tests.test_align import byte_tokenizer

FORMATS = ("bin", "onnx", "gguf-f32", "gguf-f16", "gguf-q8_0")
PROMPT = torch.tensor([[5, 9, 250, 17]])


def exported(overrides, *more):
    config = load_config(None, (*overrides, *more))
    pipeline = Pipeline(config)
    return pipeline, pipeline.build("export", init_world(config.runtime))


@pytest.fixture
def folder(tiny_overrides):
    """The folder of a tiny run with every format."""
    return exported(tiny_overrides, f"export.formats=[{', '.join(FORMATS)}]")


def test_the_folder_holds_the_trained_model_in_every_format(folder):
    pipeline, artifact = folder
    trained = models.load(pipeline.open("train").folder / "model").eval()
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


def test_the_card_says_what_the_run_measured(folder):
    pipeline, artifact = folder
    card = ModelCard.load(artifact.folder / "README.md")
    measured = pipeline.open("evaluate").facts["measures"]
    results = {
        (result.dataset_split, result.metric_type): result.metric_value
        for result in card.data.eval_results
    }
    assert results == {
        ("validation" if split == "valid" else split, metric): round(values[metric], 6)
        for split, values in measured.items()
        for metric in ("loss", "accuracy", "perplexity", "bits_per_byte")
    }
    assert card.data.language == "pt"
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.base_model is None
    assert [each["text"] for each in card.data.widget] == ["o rio"]
    for row in (pipeline.open("train").folder / "epochs.csv").read_text().splitlines()[1:]:
        epoch, phase = row.split(",")[:2]
        assert f"| {epoch} | {phase} |" in card.text
    documents = pipeline.open("corpus").facts["documents"]["train"]
    assert f"{documents} documents to train on" in card.text
    assert f"{documents} documentos de treino" in card.text
    assert "grad_clip: null" in card.text
    assert not re.search(r"\{[{%]|None|Undefined", card.text)


def test_the_card_of_own_documents_claims_no_wikipedia(tiny_overrides, tmp_path):
    lines = [json.dumps({"id": n, "text": sentence(n, 120)}) for n in range(120)]
    (tmp_path / "own.jsonl").write_text("\n".join(lines), encoding="utf-8")
    own = ("dump.source=null", f"corpus.documents={tmp_path / 'own.jsonl'}", "corpus.dedup=off")
    _, artifact = exported(tiny_overrides, *own)
    card = ModelCard.load(artifact.folder / "README.md")
    assert card.data.language is None
    assert card.data.datasets is None
    assert not re.search(r"(?i)wikip|encyclop|No held-out document|nenhum documento", card.text)
    _, artifact = exported(tiny_overrides, *own, "export={language: it, dataset: me/mine}")
    card = ModelCard.load(artifact.folder / "README.md")
    assert (card.data.language, card.data.datasets) == ("it", ["me/mine"])


def test_a_hub_model_is_named_as_the_base(tiny_overrides, monkeypatch):
    from gportuguese.export.card import _is_hub_id

    for base, is_id in (("gpt2", True), ("openai-community/gpt2", True), ("package:x", False),
                        ("/folder/of/mine", False), ("tests", False), ("a.gguf", False)):  # fmt: skip
        assert _is_hub_id(base) == is_id, base


def gpt2(positions=32):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=264, n_embd=64, n_layer=3, n_head=2, n_positions=positions, bos_token_id=263,
        eos_token_id=263,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():  # biases are zero in a fresh model, and would hide one that is lost
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_transformers_reads_the_same_model_and_tokenizer_from_gguf(tmp_path, kind):
    """An independent reader; transformers takes 1024 positions for granted."""
    model, bpe = gpt2(1024), byte_tokenizer(["casa", "mar"])
    assert len(bpe) == model.config.vocab_size
    model.save_pretrained(tmp_path)
    tokenizer.save(bpe, tmp_path)
    path = tmp_path / f"model-{kind}.gguf"
    gguf.write(model, tmp_path, path, kind)
    twin, twin_bpe = models.load_base(str(path))
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


@pytest.mark.parametrize("make", [gpt2, pytest.param(llama, marks=pytest.mark.slow)])
def test_onnx_takes_any_batch_and_length_and_padding_on_either_side(tmp_path, make):
    """Each prompt of a padded batch gets the logits that PyTorch gives it alone."""
    model = make()
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


def test_a_format_that_says_something_else_is_refused():
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


def test_gguf_of_another_architecture_says_what_to_do(tmp_path):
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=3,
        num_attention_heads=2,
    )  # fmt: skip
    with pytest.raises(ExportError, match="convert_hf_to_gguf.py"):
        gguf.write(LlamaForCausalLM(config), tmp_path, tmp_path / "model.gguf", "f32")


def test_formats_are_part_of_the_digest_and_nothing_else_is_built_again(tiny_overrides):
    pipeline, plain = exported(tiny_overrides)
    _, more = exported(tiny_overrides, "export.formats=[bin]")
    assert plain.digest != more.digest
    assert json.loads((more.folder / "manifest.json").read_text())["inputs"]["train"] == (
        pipeline.open("train").digest
    )
