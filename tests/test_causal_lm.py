import fnmatch
import shutil
import sys
from functools import partialmethod

import pytest
import torch
from httpx import Request, Response
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Starcoder2Config,
    Starcoder2ForCausalLM,
    masking_utils,
)

from gportuguese import base, causal_lm, tokenizer
from gportuguese.callbacks import TrainableGroups
from gportuguese.causal_lm import ModelError, count_parameters, parameter_groups
from gportuguese.config import Architecture, asset_path
from gportuguese.optimizer import decay_flags

# PyTorch 2.14: torch.compile itself reads `.grad` of an input that is not a leaf
NON_LEAF = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
needs_compile = pytest.mark.skipif(
    not hasattr(torch.compiler, "is_exporting"), reason="needs PyTorch 2.7"
)


def llama(layers=4, tied=False):
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            max_position_embeddings=32,
            tie_word_embeddings=tied,
        )
    )


def gpt2(layers=4, vocab_size=64):
    config = GPT2Config(
        vocab_size=vocab_size, n_embd=16, n_layer=layers, n_head=2, n_positions=32, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def test_gpt2_small_trains_the_published_parameter_counts_per_phase():
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config())
    model.tie_weights()
    sizes = [count_parameters(group) for group in parameter_groups(model)]
    assert [sum(sizes[-n:]) for n in (1, 2, 3, 4)] == [
        39_385_344,
        67_736_832,
        96_088_320,
        124_439_808,
    ]


@pytest.mark.parametrize("model", [gpt2(3), gpt2(4), gpt2(7), llama(), llama(5, tied=True)])
def test_groups_hold_each_parameter_once(model):
    groups = parameter_groups(model)
    ids = [id(parameter) for group in groups for parameter in group]
    assert sorted(ids) == sorted(id(parameter) for parameter in model.parameters())
    assert len(groups) == 4
    assert all(groups)
    embedding = model.get_input_embeddings().weight
    assert any(parameter is embedding for parameter in groups[-1])


def test_too_few_blocks_are_rejected():
    with pytest.raises(ModelError, match="has 2 blocks; at least 3"):
        parameter_groups(gpt2(2))


@pytest.mark.parametrize("model", [gpt2(), llama()])
def test_biases_and_norms_are_not_decayed_as_in_fastai(model):
    from fastai.torch_core import norm_bias_params

    flags = decay_flags(model)
    spared = {id(p) for p in model.parameters() if not flags[id(p)]}
    assert {id(p) for p in model.parameters() if p.ndim == 1} == spared
    assert spared >= {id(parameter) for parameter in norm_bias_params(model, True)}


def test_missing_base_is_a_clear_error(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="no base model at nowhere"):
        causal_lm.load_with_tokenizer("./nowhere")
    with pytest.raises(ModelError, match="neither a path nor a Hub id"):
        causal_lm.load_with_tokenizer("a/b/c")
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # models/min is not asked for on the Hub
    with pytest.raises(ModelError, match="no base model at models/min .did you mean models/mine"):
        causal_lm.load_with_tokenizer("models/min")


def test_loading_does_not_need_private_modules_of_transformers(monkeypatch):
    import transformers

    name = "modeling_gguf_pytorch_utils"
    monkeypatch.delattr(transformers, name, raising=False)
    monkeypatch.setitem(sys.modules, f"transformers.{name}", None)
    bars = transformers.utils.logging
    bars.enable_progress_bar()
    with causal_lm._without_bars():
        assert not bars.is_progress_bar_enabled()
    assert bars.is_progress_bar_enabled()


def test_hub_model_without_network_is_a_clear_error():
    assert base.locate_base("no-such-owner/no-such-model", download=False) is None
    with pytest.raises(ModelError, match="cannot fetch 'no-such-owner/no-such-model'"):
        causal_lm.load_with_tokenizer("no-such-owner/no-such-model")


def test_fresh_architecture_has_its_shape():
    shape = Architecture(layers=3, width=16, heads=2, positions=32, dropout=0.0)
    model = causal_lm.fresh_gpt2(shape, 300)
    assert (
        count_parameters(model.parameters()) == 300 * 16 + 32 * 16 + 3 * (12 * 16**2 + 13 * 16) + 32
    )


def test_fused_activations_compute_the_same():
    torch.manual_seed(0)
    plain, fused = gpt2(), gpt2()
    fused.load_state_dict(plain.state_dict())
    causal_lm.fuse_activations(fused)
    assert isinstance(fused.transformer.h[0].mlp.act, torch.nn.GELU)
    ids_BT = torch.randint(64, (2, 8))
    torch.testing.assert_close(fused.eval()(ids_BT).logits, plain.eval()(ids_BT).logits)


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that torch.compile hands to its back end, which runs them as they are."""
    found = []

    def backend(graph, _):
        found.append(graph)
        return graph.forward

    torch.compiler.reset()  # earlier tests compiled the same code
    with_backend = partialmethod(torch.nn.Module.compile, backend=backend)
    monkeypatch.setattr(torch.nn.Module, "compile", with_backend)
    return found


@NON_LEAF
@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("is_compiled", [False, pytest.param(True, marks=needs_compile)])
def test_attention_gets_no_mask(make, is_compiled, monkeypatch, graphs):
    """Fast attention rejects an explicit mask, even an equivalent one."""
    model = make().eval()
    model.config.use_cache = False
    ids_BT = torch.randint(64, (2, 16))
    wanted = model(ids_BT).logits
    masks, real = [], torch.nn.functional.scaled_dot_product_attention

    def spy(*args, attn_mask=None, is_causal=False, **kwargs):
        masks.append((attn_mask, is_causal))
        return real(*args, attn_mask=attn_mask, is_causal=is_causal, **kwargs)

    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", None)
    causal_lm.skip_packing_search()
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    if is_compiled:
        causal_lm.compile_blocks(model)
    torch.testing.assert_close(model(ids_BT).logits, wanted)
    if is_compiled:
        masks += [
            (node.kwargs.get("attn_mask"), node.kwargs.get("is_causal"))
            for graph in graphs
            for node in graph.graph.nodes
            if node.target is real
        ]
    assert set(masks) == {(None, True)}


@NON_LEAF
@needs_compile
@pytest.mark.parametrize("make", [gpt2, llama])
def test_all_phases_and_validations_share_few_compiled_graphs(make, graphs):
    """PyTorch stops compiling a function after eight graphs and only warns about it."""
    model = make()
    model.config.use_cache = False
    causal_lm.compile_blocks(model)
    ids_BT = torch.randint(64, (4, 16))
    groups = causal_lm.parameter_groups(model)
    for num_groups in (1, 2, 3, 4):
        TrainableGroups(groups, num_groups).before_fit()
        model.train()(ids_BT).logits.sum().backward()
        model.eval()
        with torch.no_grad():
            model(ids_BT)
            model(ids_BT[:3])  # the last batch of a validation
    assert 1 <= len(graphs) <= 6


def opt():
    sizes = {"hidden_size": 16, "ffn_dim": 32, "word_embed_proj_dim": 16, "num_attention_heads": 2}
    return OPTForCausalLM(OPTConfig(vocab_size=64, max_position_embeddings=32, **sizes))


def starcoder2():
    """Its rates are 0 unless they are set."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    rates = dict.fromkeys(("attention_dropout", "residual_dropout", "embedding_dropout"), 0.1)
    heads = {"num_key_value_heads": 2, "num_hidden_layers": 3}
    return Starcoder2ForCausalLM(Starcoder2Config(vocab_size=64, **sizes, **rates, **heads))


@pytest.mark.parametrize("make", [gpt2, llama, opt, starcoder2])
def test_dropout_is_set_everywhere(make):
    model = make()
    ids_BT = torch.randint(64, (4, 16))
    causal_lm.set_dropout(model.train(), 0.5)
    assert not torch.equal(model(ids_BT).logits, model(ids_BT).logits)
    causal_lm.set_dropout(model, 0.0)
    assert torch.equal(model(ids_BT).logits, model(ids_BT).logits)
    assert 0.5 not in vars(model.config).values()


def test_end_of_text_is_learnt_by_an_untied_llama(tmp_path):
    model = llama()
    model.config.pad_token_id = 3
    causal_lm.set_end_of_text(model, 5)
    model.save_pretrained(tmp_path)
    loaded = causal_lm.load(tmp_path)
    loaded(torch.tensor([[1, 5, 2]])).logits.square().sum().backward()
    assert loaded.get_input_embeddings().weight.grad[5].norm() > 0
    assert loaded.generation_config.pad_token_id == 5


@pytest.mark.parametrize("keep", [0, 100, 3000])
def test_a_truncated_base_is_rejected(tmp_path, keep):
    folder = tmp_path / "base"
    shutil.copytree(asset_path("english-nano"), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(ModelError, match="is not a complete causal LM"):
        causal_lm.load_with_tokenizer(str(folder))


def test_files_that_loading_does_not_read_do_not_change_the_identity(tmp_path):
    shutil.copytree(asset_path("english-nano"), tmp_path / "base")
    before = base.identity_of(str(tmp_path / "base"), download=False)
    (tmp_path / "base" / "README.md").write_text("other", encoding="utf-8")
    (tmp_path / "base" / "onnx").mkdir()
    (tmp_path / "base" / "pytorch_model.bin").write_bytes(
        b"read only where there are no safetensors"
    )
    assert base.identity_of(str(tmp_path / "base"), download=False) == before
    with (tmp_path / "base" / "merges.txt").open("a", encoding="utf-8") as file:
        file.write("a b\n")
    assert base.identity_of(str(tmp_path / "base"), download=False) != before


def test_weights_that_lack_a_tensor_are_rejected(tmp_path):
    model = gpt2()
    weights = model.state_dict()
    del weights["transformer.h.1.mlp.c_fc.weight"]
    shutil.copytree(asset_path("english-nano"), tmp_path / "base")
    model.save_pretrained(tmp_path / "base", state_dict=weights)
    with pytest.raises(ModelError, match=r"lack transformer\.h\.1\.mlp\.c_fc\.weight"):
        causal_lm.load_with_tokenizer(str(tmp_path / "base"))


def test_a_base_without_tokenizer_files_is_rejected(tmp_path):
    gpt2().save_pretrained(tmp_path)
    _, bpe = causal_lm.load_with_tokenizer(str(tmp_path))
    with pytest.raises(tokenizer.TokenizerError, match="save the base's tokenizer beside"):
        tokenizer.check_byte_level(bpe, "base")


def test_a_cached_hub_model_is_found_without_files_that_were_not_fetched(tmp_path, monkeypatch):
    """huggingface_hub raises an error if a cached snapshot lacks a file that was asked for."""
    has = {"config.json", "tokenizer.json", "model.safetensors"}
    for name in has:
        (tmp_path / name).write_bytes(b"{}")

    def snapshot_download(_, allow_patterns=("*",), local_files_only=False):
        repository = {"README.md", *has}
        asked = {n for n in repository if any(fnmatch.fnmatch(n, p) for p in allow_patterns)}
        if local_files_only and asked - has:
            raise LocalEntryNotFoundError("incomplete")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert base.locate_base("some/model", download=False) == tmp_path
    (tmp_path / "tokenizer.json").unlink()
    assert base.locate_base("some/model", download=False) is None


def test_a_cached_hub_model_without_weights_is_not_found(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    assert base.locate_base("some/model", download=False) is None
    with pytest.raises(base.ModelError, match="on the Hub has no weights"):
        base.locate_base("some/model", download=True)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert base.locate_base("some/model", download=False) == tmp_path
    (tmp_path / "tokenizer.json").rename(tmp_path / "tokenizer.model")
    with pytest.raises(base.ModelError, match="on the Hub has no byte-level BPE tokenizer"):
        base.locate_base("some/model", download=True)


def test_a_gated_hub_model_says_where_its_conditions_are(monkeypatch):
    def snapshot_download(_, allow_patterns, local_files_only=False):
        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        response = Response(403, request=Request("GET", "https://huggingface.co"))
        raise GatedRepoError("restricted", response=response)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(base.ModelError, match=r"accept its conditions at https://hug.*/some/model"):
        base.locate_base("some/model", download=True)
