"""The settings that change a stage's digest."""

from gportuguese import Pipeline, load_config


def test_another_mirror_serves_the_same_dump():
    def folder(*overrides):
        return Pipeline(load_config("pilot", overrides)).folder("dump")

    assert folder("dump.mirror=https://mirror.example/dumps") == folder()
    assert folder("dump.date='20240101'") != folder()
    # that of versions in which the mirror was part of the digest
    assert folder().name == "dump-7579c4feab5f"


def test_own_documents_keep_the_digest_from_before_there_were_sources(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": "Lisboa"}\n', encoding="utf-8")
    own = ("dump.source=null", f"corpus.documents={tmp_path / 'd.jsonl'}")
    assert Pipeline(load_config(None, own)).folder("corpus").name == "corpus-bf58809d9481"
