"""What looks like a secret is blanked out, and what only sounds like one is left alone."""

from __future__ import annotations

import pytest

from pytest_atomtrace.capture.redact import REDACTED, Redactor, is_secret_name


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "--api-key", "--hf-token", "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID", "DB_PASSWORD", "db_pass", "SSH_PRIVATE_KEY", "client_secret", "GOOGLE_CREDENTIALS",
        "GH_PAT",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "PATH", "ATOMTRACE_RUN_TOKEN", "--max-num-batched-tokens", "--tokenizer", "eos_token", "--pad-token",
        "num_key_value_heads", "KEYBOARD", "SPATIAL", "BYPASS", "--num-speculative-tokens",
    ],
)  # fmt: skip
def test_names_that_only_sound_like_it(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET http://u:pw@h/x?token=abc&n=1", "GET http://u:#@h/x?token=#&n=1"),
        ("pip install git+https://abcdefghijklmnopqrst@github.com/x", "pip install git+https://#@github.com/x"),
        ("Authorization: Bearer abc.def", "Authorization: #"),
        ("authorization=Basic dXNlcjpwYXNz, next", "authorization=#, next"),
        ("sent bearer 4f5e6d7c8b9a", "sent bearer #"),
        ("x-api-key: abc", "x-api-key: #"),
        ("{'api_key': 'abc', 'a': 1}", "{'api_key': '#', 'a': 1}"),
        ('"auth_token": "q\\"w", "b": 2', '"auth_token": "#", "b": 2'),
        ("""{'kv': '{"auth_token": "q"}'}""", """{'kv': '{"auth_token": "#"}'}"""),
        ("Namespace(api_key='abc', model='m')", "Namespace(api_key='#', model='m')"),
        ("unrecognized arguments: --api-key abc --foo 1", "unrecognized arguments: --api-key # --foo 1"),
        ("['--api-key', 'abc', '--x']", "['--api-key', '#', '--x']"),
        ("--hf-token=abc", "--hf-token=#"),
        ("AWS_SECRET_ACCESS_KEY=abc PATH=/bin", "AWS_SECRET_ACCESS_KEY=# PATH=/bin"),
        ("export HF_TOKEN='a b c'", "export HF_TOKEN='#'"),
        ("env=HF_TOKEN=abc", "env=HF_TOKEN=#"),
        ("HF_TOKEN: abc", "HF_TOKEN: #"),
        ("found hf_ABCDEFGHIJKLMNOPQRST here", "found # here"),
        ("ghp_ABCDEFGHIJKLMNOPQRST1234 and AKIAABCDEFGHIJKLMNOP", "# and #"),
    ],
)
def test_secrets_are_known_by_name_and_by_shape(text: str, shown: str) -> None:
    assert Redactor({}).text(text) == shown.replace("#", REDACTED)
    assert Redactor({}).data(b"\xff" + text.encode()) == b"\xff" + shown.replace("#", REDACTED).encode()


@pytest.mark.parametrize(
    "text",
    [
        "decode[bs=4 tok=4 d=4]",
        "max_tokens=5 tokens: 7 key_value=3 num_key_value_heads=8, 12 tokens/s",
        "eos_token='</s>' cache_key='f00' \"tokenizer\": \"org/model\"",
        "gemm key: M=3 N=5",
        "basic configuration of the tokenizer, bearer authentication off",
        "--max-num-seqs 64 --tokenizer org/model --key-value-cache fp8",
        "user@host:/path and git@github.com:x/y.git",
        "void moe_kernel<token_tile, 16>(float const*, key_t)",
    ],
)
def test_innocent_text_stays_as_it_is(text: str) -> None:
    assert Redactor({}).text(text) == text


def test_values_are_found_in_every_form_that_a_text_may_give_them() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n-----END KEY-----"
    env = {"TLS_PRIVATE_KEY": key, "DB_PASSWORD": 'pa"ss/word', "PROXY": "http://joe:s3cr3t%21@proxy:80"}
    redactor = Redactor(env, ["--kv-transfer-config", '{"auth_token": "inner-value"}'])
    for text in ("MIIEvQIBADAN", 'pa"ss/word', 'pa\\"ss/word', "s3cr3t!", "s3cr3t%21", "inner-value"):
        assert redactor.text(f"see {text} there") == f"see {REDACTED} there"
    assert redactor.text(key) == REDACTED


def test_a_json_document_is_cleaned_text_by_text_and_keys_stay() -> None:
    document = {"key": "abc123", "server": {"argv": ["--x", "tok-12345678"], "n": 3}, "note": None}
    assert Redactor({"MY_TOKEN": "tok-12345678"}).value(document) == {
        "key": "abc123", "server": {"argv": ["--x", REDACTED], "n": 3}, "note": None,
    }  # fmt: skip
