"""A model folder that brings Python code is refused: nothing is asked and nothing is run."""

import ast
import json
import os
import pty
import shutil
import subprocess
import sys

import pytest

from gportuguese import causal_lm
from gportuguese.config import asset_path
from tests.test_cli import sets

CODE = """
from pathlib import Path
Path(__file__).with_name("has-run").touch()
"""
NEEDED_OPTION = ("from_pretrained", "from_config")


@pytest.fixture
def foreign(tmp_path):
    """A model of a kind that transformers does not know, with the code for it."""
    folder = tmp_path / "foreign"
    shutil.copytree(asset_path("english-nano"), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kinds = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    config |= {"model_type": "foreign", "auto_map": kinds}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "code.py").write_text(CODE, encoding="utf-8")
    return folder


# one process for all commands, because loading transformers takes seconds
SCRIPT = """
import json, os, sys
from gportuguese import cli
for words, stdin in json.loads(sys.argv[1]):
    if stdin == "closed":
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    assert sys.stdin.isatty() == (stdin == "terminal")
    try:
        cli.main(words)
    except SystemExit as stop:
        print("exit", stop.code, file=sys.stderr)
"""


def test_code_of_a_model_is_neither_asked_for_nor_run(foreign, tmp_path, tiny_overrides):
    settings = (*tiny_overrides, f"align={{base: {foreign}, method: mean}}")
    generate = ["generate", str(foreign), "Once"]
    commands = [
        (generate, "terminal"),
        (["plan", *sets(settings)], "terminal"),
        (generate, "closed"),
    ]
    ours, theirs = pty.openpty()
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        stdin=theirs,
        capture_output=True,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
        timeout=250,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    said = (run.stdout + run.stderr).decode()
    assert said.splitlines().count("exit 2") == said.count("exit ") == len(commands), said
    lines = [line for line in said.splitlines() if line.startswith("gpt-pt: ")]
    assert len(lines) == len(commands)
    for line in lines:
        assert str(foreign) in line
        assert "needs Python code of its own (auto_map), which gportuguese never runs" in line
    assert "[y/N]" not in said
    assert "trust_remote_code" not in said
    assert not list(tmp_path.rglob("has-run"))


def test_a_known_kind_of_model_loads_without_the_code_beside_it(foreign, tmp_path):
    path = foreign / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"model_type": "gpt2"}), encoding="utf-8")
    causal_lm.load_with_tokenizer(str(foreign))[0].save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text(encoding="utf-8"))
    assert "auto_map" not in saved
    assert not list(tmp_path.rglob("has-run"))


def test_every_call_that_loads_a_model_forbids_its_code(request):
    root = request.config.rootpath
    calls = 0
    for path in [*root.glob("src/**/*.py"), *root.glob("scripts/**/*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        forbidding = set()
        for call in ast.walk(tree):
            if isinstance(call, ast.Call):
                options = {option.arg: option.value for option in call.keywords}
                value = options.get("trust_remote_code")
                if isinstance(value, ast.Constant) and value.value is False:
                    forbidding.add(call.func)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in NEEDED_OPTION:
                assert node in forbidding, f"{path}:{node.lineno}: trust_remote_code=False"
                calls += 1
    assert calls > 10
