"""Files appear whole or not at all; tokens never appear."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pytest_atomtrace.capture.files import link_or_copy, move, read_json, write_bytes, write_json
from pytest_atomtrace.capture.redact import REDACTED, Redactor, is_secret_name
from pytest_atomtrace.errors import StoreError


def test_a_written_file_replaces_the_old_one_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"n": 1})
    write_json(path, {"n": 2})
    assert read_json(path) == {"n": 2}
    assert [child.name for child in path.parent.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"n": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device", descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"a\.json cannot be written: No space left on device"):
        write_bytes(path, b"half")
    assert read_json(path) == {"n": 1}
    assert [child.name for child in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(("text", "problem"), [("{", "is damaged"), ("[1]", "holds list, not an object")])
def test_a_damaged_json_is_an_error_and_an_absent_one_is_none(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "a.json"
    assert read_json(path) is None
    path.write_text(text)
    with pytest.raises(StoreError, match=problem):
        read_json(path)


def test_files_move_and_copy_where_rename_and_link_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    source = tmp_path / "a"
    source.write_bytes(b"x" * 1000)
    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(source, tmp_path / "b" / "a")
    original = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: refuse() if self == source else original(self, to))
    move(source, tmp_path / "c" / "a")
    assert not source.exists()
    assert (tmp_path / "b" / "a").read_bytes() == (tmp_path / "c" / "a").read_bytes() == b"x" * 1000


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "--api-key"],
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["ATOMTRACE_RUN_TOKEN", "TOKENIZERS_PARALLELISM", "--num-speculative-tokens", "--max-num-batched-tokens",
     "MONKEY", "ATOM_USE_TRITON_MOE", "--tokenizer", "PATH"],
)  # fmt: skip
def test_names_that_only_look_like_secrets_are_not_hidden(name: str) -> None:
    assert not is_secret_name(name)


def test_a_secret_is_gone_from_env_arguments_json_and_text() -> None:
    env = {"HF_TOKEN": "hf_abcdefgh", "SHORT_KEY": "1", "PATH": "/bin", "URL": "https://u:hf_abcdefgh@host"}
    argv = [
        "server",
        "--api-key",
        "sk-12345678",
        "--hf-token=hf_xyzxyzxyz",
        "--kv",
        '{"auth_token": "q\\"w", "a": 1}',
    ]
    redactor = Redactor(env, argv)
    assert redactor.env(env) == {
        "HF_TOKEN": REDACTED, "SHORT_KEY": REDACTED, "PATH": "/bin", "URL": f"https://u:{REDACTED}@host",
    }  # fmt: skip
    assert redactor.argv(argv) == [
        "server", "--api-key", REDACTED, f"--hf-token={REDACTED}", "--kv",
        f'{{"auth_token": "{REDACTED}", "a": 1}}',
    ]  # fmt: skip
    assert redactor.text("tried sk-12345678 and 1") == f"tried {REDACTED} and 1"
    assert redactor.data(b"\xff hf_xyzxyzxyz") == b"\xff " + REDACTED.encode()


@settings(max_examples=60, deadline=None)
@given(
    secret=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=8, max_size=20),
    before=st.text(max_size=20),
    after=st.text(max_size=20),
)
def test_no_text_around_it_hides_a_secret_from_the_redactor(secret: str, before: str, after: str) -> None:
    assume(secret not in REDACTED)
    redacted = Redactor({"MY_TOKEN": secret}).text(before + secret + after)
    assert secret not in redacted
    assert REDACTED in redacted
