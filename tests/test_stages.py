"""The settings that change a stage's digest."""

from gportuguese import Pipeline, load_config


def test_another_mirror_serves_the_same_dump():
    def folder(*overrides):
        return Pipeline(load_config("pilot", overrides)).folder("dump")

    assert folder("dump.mirror=https://mirror.example/dumps") == folder()
    assert folder("dump.date='20240101'") != folder()
    # that of versions in which the mirror was part of the digest
    assert folder().name == "dump-7579c4feab5f"
