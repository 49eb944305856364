"""Every line on standard error comes from us, none from a library."""

import json
import re
import subprocess
import sys

from tests.test_cli import sets

# one process for all commands, because loading PyTorch takes seconds
SCRIPT = """
import json, sys
import gportuguese
overrides, commands = json.loads(sys.argv[1])
config = gportuguese.load_config(None, overrides)
model = str(gportuguese.Pipeline(config).build("train", gportuguese.init_world(config.runtime)).folder / "model")
from gportuguese import cli
for words in commands:
    for stream in (sys.stdout, sys.stderr):
        print("$", *words[:1], file=stream, flush=True)
    try:
        cli.main([word.replace("MODEL", model) for word in words])
    except SystemExit as stop:
        print("exit", stop.code, file=sys.stderr)
"""
LOG = r"\d\d:\d\d:\d\d "
KNOWN = {
    "": [],  # the Python API prints nothing
    "train": [
        LOG + r"\w+: already done, .*",
        "sample: o rio \\| .*",
        "next: gpt-pt evaluate --set .*",
        " +gpt-pt serve .*/model",
        " +gpt-pt generate .*/model 'o rio'",
    ],
    "evaluate": [
        LOG + r"\w+: already done, .*",
        LOG + "evaluate: (building .*|done in .* s)",
        "next: gpt-pt export --set .*",
    ],
    "export": [
        LOG + r"\w+: already done, .*",
        LOG + "export: (building .*|done in .* s)",
        LOG + "export: (writing safetensors|safetensors agrees with PyTorch, .* s)",
        "next: gpt-pt generate .*/export-\\w+ 'o rio'",
        " +gpt-pt push .*/export-\\w+ --repo USER/NAME --dry-run",
    ],
    "lr-find": [
        LOG + r"\w+: already done, .*",
        "next: gpt-pt train --set .* --set train.phases.0.lr_max=.*",
    ],
    "plan": ["next: gpt-pt train --set .*"],
    "status": [],
    "config": ["next: gpt-pt train --set .*"],
    "generate": [LOG + "model: .*/model", r"\d+ tokens, [\d.]+ per second"],
    "tokens": ["gpt-pt: .*"],
}


def test_every_line_on_standard_error_is_known(tiny_overrides, tmp_path):
    words = sets(tiny_overrides)
    commands = [
        *(
            [name, *words]
            for name in ("train", "evaluate", "export", "lr-find", "status", "config")
        ),
        ["plan", *words, "--no-measure"],
        ["generate", "MODEL", "o rio", "--max-new-tokens", "4"],
        ["tokens", "--set", "tokens.block_size=x"],
    ]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([tiny_overrides, commands])],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    name, seen = "", {"": []}
    for line in run.stderr.splitlines():
        if line.startswith("$ "):
            name = line[2:]
            seen[name] = []
        else:
            seen[name].append(line)
    assert set(seen) == set(KNOWN)
    for name, lines in seen.items():
        if name:
            assert lines.pop() == f"exit {2 if name == 'tokens' else 0}", lines
        unknown = [line for line in lines if not any(re.fullmatch(k, line) for k in KNOWN[name])]
        if name != "tokens":  # its error has several lines
            assert not unknown, (name, unknown)
        for pattern in KNOWN[name]:
            assert any(re.fullmatch(pattern, line) for line in lines), (name, pattern, lines)
    assert "Warning" not in run.stderr
