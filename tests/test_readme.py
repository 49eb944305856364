"""What README promises exists."""

import re

import pytest

from gportuguese import cli


@pytest.fixture
def readme(request):
    return (request.config.rootpath / "README.md").read_text(encoding="utf-8")


def test_commands_are_real(readme, capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = capsys.readouterr().out
    commands = set(re.findall(r"gpt-pt ([a-z-]+)", readme))
    assert {"train", "evaluate", "status", "generate", "config", "lr-find"} <= commands
    for command in commands:
        assert re.search(rf"^ +{command} ", listed, re.MULTILINE), command


FILES = re.compile(r"configs/[\w-]+\.yaml|scripts/\w+\.py|docs/results/\w+\.md")
GONE = {"scripts/compare_scratch.py"}  # older results name the script of their commit


def test_configs_scripts_and_targets_are_there(readme, request):
    root = request.config.rootpath
    assert FILES.findall(readme)
    pages = [readme, *(p.read_text(encoding="utf-8") for p in (root / "docs").rglob("*.md"))]
    for name in {name for page in pages for name in FILES.findall(page)} - GONE:
        assert (root / name).is_file(), name
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"(?:^    |&& )make (\w+)", readme, re.MULTILINE)
    assert set(targets) == {"setup", "demo", "check"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
