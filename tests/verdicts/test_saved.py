"""A case read back from a manifest, in which its secrets are redacted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace import Case, load_trace
from pytest_atomtrace.capture.redact import Redactor
from pytest_atomtrace.verdicts.fingerprint import fingerprint
from pytest_atomtrace.verdicts.saved import saved_case
from tests.traces import Recipe, write_ranks

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "plantedTokenQ7w8E9"
CASE = Case(model="org/model", env={"VENDOR_API_KEY": TOKEN}, server_args=["--auth-token", TOKEN])  # type: ignore[arg-type]  # a mapping and a list, as users write them


def manifest() -> dict[str, object]:
    """As a capture writes it."""
    redactor = Redactor(dict(CASE.env), CASE.server_args)
    facts = {**CASE.as_dict(), "env": redactor.env(dict(CASE.env)), "server_args": redactor.argv(CASE.server_args)}
    assert TOKEN not in json.dumps(facts)
    return {"schema": 1, "slug": CASE.slug, "case": facts, "expected_ranks": ["rank_0"]}


def test_a_redacted_case_keeps_the_slug_of_its_capture() -> None:
    saved = saved_case(manifest())
    assert saved is not None
    assert saved.slug == CASE.slug
    assert (saved.model, saved.tp, saved.output_tokens) == (CASE.model, CASE.tp, CASE.output_tokens)


@pytest.mark.parametrize("slug", [None, "", "../../elsewhere", "/etc/x", 5])
def test_a_slug_that_names_no_file_is_not_taken(slug: object) -> None:
    saved = saved_case({**manifest(), "slug": slug})
    assert saved is not None
    assert saved.slug.startswith("model-tp1-")


def test_an_unredacted_case_is_the_case_itself() -> None:
    plain = Case(model="org/model", env={"A": "b"})  # type: ignore[arg-type]  # as above
    assert saved_case({"slug": plain.slug, "case": plain.as_dict()}) == plain


def test_what_a_baseline_compares_holds_no_secret_and_is_the_same_in_a_replay(tmp_path: Path) -> None:
    traces = write_ranks(tmp_path, Recipe())
    (traces / "manifest.json").write_text(json.dumps(manifest()))
    replayed = load_trace(traces)
    live = load_trace(traces)
    live.case = CASE
    assert TOKEN not in str(fingerprint(live))
    assert fingerprint(live) == fingerprint(replayed)
