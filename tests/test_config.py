import subprocess
import sys
import zipfile

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gportuguese.config import (
    Architecture,
    Config,
    ConfigError,
    DumpConfig,
    as_tree,
    checked,
    load_config,
    shipped_configs,
)
from gportuguese.config.loading import _parse as parse


def write(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_all_problems_are_reported_at_once_with_suggestions(tmp_path):
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
        ("train.global_batch_size=9", "is not a multiple of runtime.micro_batch_size=8"),
        ("tokenizer.vocab_size=100", "tokenizer.vocab_size=100: 100 must be at least 257"),
        ("align={base: {layers: 4, width: 10, heads: 3, positions: 64}}", "use method: random"),
        (
            "align={base: {layers: 4, width: 10, heads: 3, positions: 64}}",
            "is not a multiple of heads",
        ),
        ("tokens.block_size=0", "tokens.block_size=0: 0 must be at least 2"),
        ("train.phases=[]", "train.phases=[]: needs at least one phase"),
        ("dump.wiki=itwiki", "dump.wiki=itwiki: has no effect, because dump.source=package:"),
        ("corpus.documents=x.jsonl", "set only one of them"),
        ("train.seed=true", "train.seed=true: expected int, got True"),
        ("train.seed=-1", "-1 must be at least 0"),
        ("runtime.device=cuda:x", "must be auto, cpu, cuda or cuda:N"),
        ("runtime.device=cudafoo", "must be auto, cpu, cuda or cuda:N"),
        ("corpus.language=no", "YAML reads this word as false; put it in quotes, such as 'no'"),
        ("corpus.language=english", "'english' must be an ISO 639 code; did you mean en?"),
        ("corpus.sources=[{documents: a, language: Português}]", "code; did you mean pt?"),
        ("export.language=pt_BR", "'pt_BR' must be an ISO 639 code; did you mean pt-BR?"),
        ("corpus.language=klingonês", "'klingonês' must be an ISO 639 code, such as pt or pt-BR"),
        ("nonsense", "write it as section.key=value"),
    ],
)
def test_invalid_settings_are_rejected(override, message):
    with pytest.raises(ConfigError, match="^") as caught:
        load_config(None, (override,))
    assert message in str(caught.value)


def test_exponents_without_a_dot_are_numbers(tmp_path):
    path = write(
        tmp_path,
        "name: x\ntrain: {phases: [{name: a, epochs: 1, trainable_groups: 4, lr_max: 1e-3}]}\n",
    )
    assert load_config(path).train.phases[0].lr_max == 1e-3


def test_our_yaml_loader_does_not_change_the_default_loader():
    assert yaml.safe_load("1e3") == "1e3"


def test_a_date_is_read_as_text():
    for date in ("20161101", "2016-11-01"):
        config = load_config(None, (f"dump={{wiki: ptwiki, date: {date}}}", "name=2016-11-01"))
        assert (config.dump.date, config.name) == ("20161101", "2016-11-01")


def test_without_a_path_the_shipped_demo_is_loaded(tmp_path, monkeypatch):
    for name in ("demo", "demo.yaml"):
        (tmp_path / name).write_text("name: mine\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_config().name == "demo"
    assert load_config("demo.yaml").name == "mine"


def test_off_is_read_as_a_word():
    assert load_config(None, ("corpus.dedup=off",)).corpus.dedup == "off"


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no-such.yaml"):
        load_config(tmp_path / "no-such.yaml")


def test_set_changes_entries_of_lists_in_the_file_and_in_the_defaults(tmp_path):
    short = write(tmp_path, "name: x")
    for path in (None, short):
        phases = load_config(path).train.phases
        config = load_config(path, ("train.phases.1.lr_max=0.1", "train.phases[0].epochs=3"))
        changed = config.train.phases
        assert (changed[0].epochs, changed[1].lr_max) == (3, 0.1)
        assert changed[2:] == phases[2:]
        assert load_config(path, ("train.momentums.2=0.5",)).train.momentums == (0.95, 0.85, 0.5)


def test_set_can_replace_the_base_name_by_an_architecture():
    shape = {"layers": 3, "width": 8, "heads": 2, "positions": 1024}
    sets = [f"align.base.{key}={value}" for key, value in shape.items()]
    config = load_config(None, (*sets, "align.method=random"))
    assert config.align.base == Architecture(**shape)
    assert load_config(None, ("align.base=gpt2",)).align.base == "gpt2"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.phases.0.lr_mx=1", "unknown key; did you mean 'lr_max'?"),
        ("train.phases.9.nonsense=9", "no entry '9'; the list has entries 0 to 3"),
        ("train.phases.9={}", "no entry '9'; the list has entries 0 to 3"),
        ("train.phases.-1.epochs=2", "no entry '-1'; the list has entries 0 to 3"),
        ("train.phases.last.epochs=2", "no entry 'last'; the list has entries 0 to 3"),
        ("export.formats.0=onnx", "no entry '0'; the list has no entries"),
        ("trian.seed=1", "trian: unknown key; did you mean 'train'?"),
        ("dmp={}", "unknown key; did you mean 'dump'?"),
        ("block_size=64", "unknown key; did you mean 'tokens.block_size'?"),
        ("train.phase.0.lr_max=1", "train.phase: unknown key; did you mean 'phases'?"),
        (
            "corpus.sources=[{documents: a, filtr: {}}]",
            "corpus.sources[0].filtr: unknown key; did you",
        ),
        ("train.seed.x=1", "train.seed: expected int, got {'x': 1}"),
        ("train.phases[0].epochs=many", "expected int, got 'many'"),
        ("align.base.layers=4", "align.base.width: missing"),
        ("corpus={min_charz: 3}", "corpus.min_charz: unknown key; did you mean 'min_chars'?"),
        ("train.seed=[", "the value is not YAML"),
        ("train.pct_start=2", "2.0 must lie in (0, 1)"),
    ],
)
def test_problems_of_a_set_flag_name_the_flag(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(None, (override,))
    assert str(caught.value).startswith(f"--set {override}: {message}")
    assert "demo.yaml" not in str(caught.value)


def test_a_long_value_is_cut_in_the_error():
    long = "word " * 500
    for override in (f"train.seed={long}", f"train.phases={long}", f"runtime={long}", long):
        with pytest.raises(ConfigError) as caught:
            load_config(None, (override,))
        assert all(len(line) < 200 for line in str(caught.value).splitlines())
        assert str(caught.value).startswith(f"--set {override[:60]}")


def test_problems_of_the_file_and_of_flags_are_listed_separately(tmp_path):
    path = write(tmp_path, "name: x\ntrain: {sed: 1, eps: small}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, ("train.eps=1e-6", "train.beta2=big", "runtime.device=cpu"))
    assert str(caught.value).splitlines() == [
        f"{path}:",
        "  - train.sed: unknown key; did you mean 'seed'?",
        "--set train.beta2=big: expected float, got 'big'",
    ]


def gpt_pt(folder, *words):
    command = [sys.executable, "-m", "gportuguese", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_shipped_configs_resolve_by_name_from_anywhere(tmp_path):
    listed = gpt_pt(tmp_path, "config", "--list").stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(shipped_configs())
    assert all(len(line) <= 80 for line in listed.splitlines())
    for name in ("v100", "v100.yaml"):
        assert gpt_pt(tmp_path, "config", "--config", name).stdout.startswith("name: v100\n")
    unknown = gpt_pt(tmp_path, "config", "--config", "v1000")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert f"one of the shipped configs: {', '.join(shipped_configs())}" in unknown.stderr
    (tmp_path / "v100").mkdir()
    (tmp_path / "v100.yaml").write_text("name: mine", encoding="utf-8")
    for name in ("v100", "v100.yaml"):
        assert gpt_pt(tmp_path, "config", "--config", name).stdout.startswith("name: mine\n")


@pytest.mark.network
def test_the_wheel_contains_the_configs(tmp_path, request):
    """Needs the network: pip fetches the build environment from PyPI."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*command, tmp_path, request.config.rootpath], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = "from gportuguese.config import load_config; print(load_config('v100').name)"
    command = [sys.executable, "-c", code]
    run = subprocess.run(
        command,
        cwd=tmp_path / "installed",
        env={"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "v100\n"
    packaged = {path.stem for path in (tmp_path / "installed/gportuguese/configs").iterdir()}
    assert packaged == set(shipped_configs())


@pytest.mark.parametrize("name", shipped_configs())
def test_shipped_configs_are_valid_and_described(name):
    assert load_config(name).name == name
    assert shipped_configs()[name].endswith(".")


def test_v100_is_the_published_recipe():
    config = load_config("v100")
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
def test_a_resolved_config_survives_a_round_trip(block_size, rate, precision):
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


PHASE = "{name: a, epochs: 1, trainable_groups: 4, lr_max: 1e-3}"


def test_phases_may_share_settings_by_yaml_aliases(tmp_path):
    path = write(tmp_path, f"name: x\ntrain:\n  phases: [&a {PHASE}, {{<<: *a, name: b}}, *a]\n")
    first, second, third = load_config(path, ("train.phases.2.lr_max=5e-4",)).train.phases
    assert [each.name for each in (first, second, third)] == ["a", "b", "a"]
    assert [each.lr_max for each in (first, second, third)] == [1e-3, 1e-3, 5e-4]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("name=007", "007"), ("name=2023_01", "2023_01"), ("dump.date=20161101", "20161101")],
)
def test_text_that_looks_like_a_number_stays_as_it_is_written(setting, value):
    config = load_config(None, ("dump.source=null", setting))
    assert value in (config.name, config.dump.date)


def test_a_number_from_python_is_read_as_text_too():
    assert checked(Config(name="x", dump=DumpConfig(date=20161101))).dump.date == "20161101"


def test_numbers_are_plain_numbers():
    config = load_config(None, ("train.epoch_tokens=100_000", "runtime.num_workers=0"))
    assert type(config.train.epoch_tokens) is type(config.runtime.num_workers) is int
    assert config.train.epoch_tokens == 100_000


def test_a_date_that_does_not_exist_is_a_problem_of_its_setting(tmp_path):
    with pytest.raises(ConfigError, match="--set dump.date=2016-31-12: the value is not YAML"):
        load_config(None, ("dump.date=2016-31-12",))
    with pytest.raises(ConfigError, match="c.yaml is not YAML: month must be in 1..12"):
        load_config(write(tmp_path, "name: x\ndump: {date: 2016-31-12}\n"))


def test_a_key_that_stands_twice_is_named_with_its_line(tmp_path):
    path = write(tmp_path, "name: a\ntrain: {seed: 1}\ntrain: {eps: 1e-6}\n")
    with pytest.raises(ConfigError, match="line 3: 'train' is given twice"):
        load_config(path)
