import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gportuguese.config import Architecture, Config, ConfigError, as_tree, load_config
from gportuguese.config.loading import _parse as parse

ROOT_CONFIGS = ("demo", "pilot", "v100", "h100", "english-nano")


def test_the_demo_config_is_that_of_the_package(request):
    root = request.config.rootpath
    own, packaged = root / "configs/demo.yaml", root / "src/gportuguese/assets/demo.yaml"
    assert own.read_bytes() == packaged.read_bytes()


def write(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_unknown_key_is_refused_with_a_suggestion_and_all_problems_come_at_once(tmp_path):
    path = write(tmp_path, "name: x\ntrain: {sed: 1, precision: fp8}\ncorpus: {min_chars: many}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert "train.sed: unknown key; did you mean 'seed'?" in message
    assert "train.precision: 'fp8' is not one of 'fp32', 'fp16', 'bf16'" in message
    assert "corpus.min_chars: expected int, got 'many'" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.global_batch_size=9", "does not divide by runtime.micro_batch_size=8"),
        ("tokenizer.vocab_size=100", "tokenizer.vocab_size: at least 257"),
        ("align={base: {layers: 4, width: 10, heads: 3, positions: 64}}", "use method: random"),
        (
            "align={base: {layers: 4, width: 10, heads: 3, positions: 64}}",
            "does not divide by heads",
        ),
        ("tokens.block_size=0", "tokens.block_size: must be at least 2"),
        ("train.phases=[]", "train.phases: at least one phase"),
        ("corpus.documents=x.jsonl", "give one of them, not both"),
        ("train.seed=true", "train.seed: expected int, got True"),
        ("train.seed=-1", "must not be negative"),
        ("runtime.device=cuda:x", "use auto, cpu, cuda or cuda:N"),
        ("runtime.device=cudafoo", "use auto, cpu, cuda or cuda:N"),
        ("nonsense", "write it as section.key=value"),
    ],
)
def test_relations_between_settings(override, message):
    with pytest.raises(ConfigError, match="^") as caught:
        load_config(None, (override,))
    assert message in str(caught.value)


def test_number_without_a_dot_is_a_number(tmp_path):
    path = write(
        tmp_path,
        "name: x\ntrain: {phases: [{name: a, epochs: 1, trainable_groups: 4, lr_max: 1e-3}]}\n",
    )
    assert load_config(path).train.phases[0].lr_max == 1e-3


def test_reading_configs_leaves_other_users_of_yaml_alone():
    assert yaml.safe_load("1e3") == "1e3"


def test_a_date_is_text_whatever_yaml_thinks():
    assert load_config(None, ("dump={wiki: ptwiki, date: 20161101}",)).dump.date == "20161101"


def test_off_is_a_word():
    assert load_config(None, ("corpus.dedup=off",)).corpus.dedup == "off"


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no-such.yaml"):
        load_config(tmp_path / "no-such.yaml")


@pytest.mark.parametrize("name", ROOT_CONFIGS)
def test_shipped_configs_are_valid(name, request):
    config = load_config(request.config.rootpath / "configs" / f"{name}.yaml")
    assert config.name == name


def test_v100_is_the_published_recipe(request):
    config = load_config(request.config.rootpath / "configs" / "v100.yaml")
    fits = [(p.epochs, p.trainable_groups, p.lr_max, p.lr_ratio) for p in config.train.phases]
    assert fits == [
        (1, 1, 2e-3, 1.0),
        (1, 2, 1e-3, pytest.approx(2.6**4)),
        (1, 3, 5e-4, pytest.approx(2.6**4)),
        (2, 4, 1e-4, pytest.approx(2.6**4)),
    ]
    assert (config.corpus.min_chars, config.tokenizer.vocab_size) == (1800, 50257)
    assert (config.train.global_batch_size, config.tokens.block_size) == (8, 1024)
    assert (config.train.precision, config.train.beta2, config.train.eps) == ("fp16", 0.99, 1e-5)


@given(st.integers(2, 4096), st.floats(1e-6, 1.0), st.sampled_from(["fp32", "fp16", "bf16"]))
def test_a_resolved_config_reads_back_as_itself(block_size, rate, precision):
    config = load_config(
        None,
        (
            f"tokens.block_size={block_size}",
            f"train.phases=[{{name: a, epochs: 1, trainable_groups: 4, lr_max: {rate!r}}}]",
            f"train.precision={precision}",
            "align={base: {layers: 3, width: 8, heads: 2, positions: 8192}, method: random}",
        ),
    )
    problems = []
    assert parse(Config, as_tree(config), "", problems) == config
    assert not problems
    assert config.align.base == Architecture(layers=3, width=8, heads=2, positions=8192)
