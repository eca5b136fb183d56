"""`atomtrace spec`, `schema` and `catalog`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace import Case
from pytest_atomtrace.cases.specs.schema import SCHEMA_FILE, schema_text
from tests.cli.conftest import Result, atomtrace
from tests.specs.models import write_catalog
from tests.specs.reading import CASE, located, read
from tests.traces import LAYERS, NAME, Recipe, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["atomtrace"]


def saved_capture(folder: Path, *recipes: Recipe) -> Path:
    """A capture as the store keeps it: ranks and a manifest with the case."""
    case = {"model": "maker/M", "tp": 2, "conc": 4, "server_args": ["--level", "0"], "env": {"A": "yes: no"}}
    slug = Case.from_dict(case).slug
    place = folder / "captures" / slug / "1"
    write_ranks(place, *(recipes or (Recipe(), Recipe())))
    manifest = {
        "schema": 1,
        "slug": slug,
        "engine": "sim",
        "case": case,
        "ranks": {f"rank_{n}": {"file": f"rank_{n}/{NAME}"} for n in range(len(recipes) or 2)},
        "expected_ranks": [f"rank_{n}" for n in range(len(recipes) or 2)],
    }
    (place / "manifest.json").write_text(json.dumps(manifest))
    return place


def test_check_says_what_a_file_holds_or_every_problem(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "good.atom.yaml").write_text(CASE + "launch: {mean: 1 ms}\n")
    (tmp_path / "bad.atom.yml").write_text("case: {model: m, tpp: 1}\nlaunch: {mean: 1}\n")
    good = atomtrace("spec", "check", tmp_path / "good.atom.yaml")
    assert (good.code, good.out) == (0, f"{tmp_path}/good.atom.yaml: 1 case, 1 check\n")
    both = atomtrace("spec", "check", tmp_path)
    assert both.code == 1
    assert f"{tmp_path}/bad.atom.yml:1:18: case: unknown key 'tpp' (did you mean 'tp'?)\n" in both.out
    assert f"{tmp_path}/bad.atom.yml:2:16: launch.mean: '1' is not a duration" in both.out
    assert both.out.endswith("2 problems in 2 files\n")
    record = atomtrace("spec", "check", tmp_path, "--json").json
    assert record["problems"] == 2
    assert record["files"][0]["problems"][0]["line"] == 1


def test_check_takes_a_catalog(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "c.atom.yaml"
    path.write_text("from_catalog: small\nlaunch: {mean: 1 ms}\n")
    assert "cases of a catalog that was not given (--catalog), 1 check" in atomtrace("spec", "check", path).out
    with_one = atomtrace("spec", "check", path, "--catalog", write_catalog(tmp_path))
    assert (with_one.code, with_one.out) == (0, f"{path}: 1 case, 1 check\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("spec",), "required: ACTION"),
        (("spec", "chek"), "invalid choice: 'chek'"),
        (("spec", "check"), "required: FILE (see atomtrace spec check --help)"),
        (("spec", "check", "{}"), "holds no *.atom.yaml"),
        (("spec", "new"), "required: --from-capture"),
        (("spec", "new", "--from-capture", "{}/gone"), "there is no such file or directory"),
        (("spec", "new", "--from-capture", "{}/x", "--output", "{}/x.yaml"), "pytest collects files named *.atom.yaml"),
        (("catalog", "list", "{}/gone.json"), "the catalog cannot be read: No such file or directory"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    atomtrace: Callable[..., Result],
    tmp_path: Path,
    words: tuple[str, ...],
    says: str,
) -> None:
    result = atomtrace(*(word.replace("{}", str(tmp_path)) for word in words))
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert says in result.err


def test_a_pipe_is_not_waited_for(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.atom.yaml"
    os.mkfifo(pipe)
    result = atomtrace("spec", "check", pipe)
    assert (result.code, result.out.splitlines()[0]) == (1, f"{pipe}:1:1: cannot be read: it is no regular file")


def test_a_missing_file_is_a_problem_like_any_other(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    result = atomtrace("spec", "check", tmp_path / "gone.atom.yaml")
    assert result.code == 1
    assert "gone.atom.yaml:1:1: cannot be read: No such file or directory" in result.out


@pytest.mark.parametrize(
    "words", [("spec",), ("spec", "check"), ("spec", "new"), ("schema",), ("catalog",), ("catalog", "list")]
)
def test_help_explains_and_shows_examples(atomtrace: Callable[..., Result], words: tuple[str, ...]) -> None:
    result = atomtrace(*words, "--help", width=80)
    assert (result.code, result.err) == (0, "")
    assert f"usage: atomtrace {' '.join(words)} " in result.out
    assert f"  atomtrace {words[0]}" in result.out.partition("examples:")[2]
    assert max(map(len, result.out.splitlines())) <= 80


def test_schema_prints_the_committed_document(atomtrace: Callable[..., Result]) -> None:
    assert atomtrace("schema").out == schema_text()
    assert atomtrace("schema", "--json").json["json_schema"] == json.loads(schema_text())


def test_catalog_list_counts_models_variants_and_cells(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    path = write_catalog(tmp_path)
    result = atomtrace("catalog", "list", path)
    assert result.code == 0
    assert result.out.endswith("3 models, 6 variants, 14 cells\n")
    assert result.row("big-model")[:6] == ["big-model", "-", "8", "2-256", "1024/1024", "8192/1024"]
    one = atomtrace("catalog", "list", path, "--model", "small", "--json").json
    assert one["totals"] == {"models": 1, "variants": 1, "cells": 1}
    wrong = atomtrace("catalog", "list", path, "--model", "smal")
    assert (wrong.code, "did you mean 'small'?" in wrong.err) == (2, True)


def test_a_drafted_spec_is_sound_and_says_what_the_capture_holds(
    atomtrace: Callable[..., Result],
    tmp_path: Path,
) -> None:
    capture = saved_capture(tmp_path)
    result = atomtrace("spec", "new", "--from-capture", capture)
    assert (result.code, result.err) == (0, "")
    spec = read(tmp_path, result.out)
    assert located(spec) == []
    (one,) = spec.cases
    assert (one.case.model, one.case.tp, one.case.conc) == ("maker/M", 2, 4)
    assert (one.case.server_args, one.case.env) == (("--level", "0"), (("A", "yes: no"),))
    asked = {check.assertion.first: check.assertion.arguments for check in spec.checks}
    assert asked["mfma_moe1_a_t32"] == {"during": "decode", "per_step": LAYERS}
    assert asked["aiter::moe_forward"] == {"during": "prefill", "layer": "op"}
    assert "p50: 126 us  # measured 120.0 us" in result.out
    assert "ranks:\n  decode: {counts: true}" in result.out
    assert "The simulator made these times up" in result.out


def test_a_drafted_spec_passes_on_its_own_capture_and_fails_on_a_changed_one(
    atomtrace: Callable[..., Result],
    pytester: pytest.Pytester,
) -> None:
    capture = saved_capture(pytester.path)
    target = pytester.path / "drafted.atom.yaml"
    made = atomtrace("spec", "new", "--from-capture", capture, "--output", target)
    schema = pytester.path / "atom.schema.json"
    assert made.out == (
        f"wrote {target}; next: atomtrace spec check {target}\n"
        f"for completion in editors, once: atomtrace schema > {schema}\n"
    )
    # A path of this machine in a committed spec would be wrong on every other one.
    assert target.read_text().startswith("# yaml-language-server: $schema=atom.schema.json\n")
    checks = atomtrace("spec", "check", target, "--json").json["files"][0]["checks"]
    pytester.runpytest_inprocess(f"--atom-replay={capture}").assert_outcomes(passed=len(checks))
    write_ranks(capture, *[Recipe(renamed={"mfma_moe1_a_t32": "moe1_fallback"}, duration_us=12.0)] * 2)
    result = pytester.runpytest_inprocess(f"--atom-replay={capture}")
    assert result.parseoutcomes()["failed"] >= 3
    again = atomtrace("spec", "new", "--from-capture", capture, "--output", target)
    assert (again.code, "is there already; name a new file" in again.err) == (2, True)


def test_a_spec_drafted_from_a_capture_with_secrets_works_on_it_and_holds_none(
    atomtrace: Callable[..., Result],
    pytester: pytest.Pytester,
) -> None:
    capture = saved_capture(pytester.path)
    manifest = json.loads((capture / "manifest.json").read_text())
    fields = {**manifest["case"], "bench_args": ["--seed", "1"]}
    fields["server_args"] = [
        "--level",
        "0",
        "--api-key",
        "s3cr3t-A1",
        "--kv-transfer-config",
        '{"auth_token": "Q7w8E9"}',
    ]
    fields["env"] = {"A": "yes: no", "HF_TOKEN": "s3cr3t-B2"}
    case = Case.from_dict(fields)
    # As a capture of it is written: named after the case as it was asked for, without what is secret in it.
    fields["server_args"] = ["--level", "0", "--api-key", "<redacted>", "--kv-transfer-config"]
    fields["server_args"] += ['{"auth_token": "<redacted>"}']
    fields["env"]["HF_TOKEN"] = "<redacted>"
    (capture / "manifest.json").write_text(json.dumps({**manifest, "case": fields, "slug": case.slug}))
    saved = capture.parent.rename(capture.parent.with_name(case.slug))
    target = pytester.path / "drafted.atom.yaml"
    assert atomtrace("spec", "new", "--from-capture", saved, "--output", target).code == 0
    text = target.read_text()
    assert "redacted" not in text
    assert "  # HF_TOKEN held a secret, which no capture keeps; before a launch set it where pytest runs.\n" in text
    assert "  # --api-key held a secret, which no capture keeps; before a launch add it to server_args.\n" in text
    assert "  # --kv-transfer-config held a secret" in text
    assert '  env: {A: "yes: no"}\n' in text
    assert '  server_args: ["--level", "0"]\n' in text
    checks = len(atomtrace("spec", "check", target, "--json").json["files"][0]["checks"])
    for place in (saved, saved / "1", pytester.path):
        pytester.runpytest_inprocess(f"--atom-replay={place}", target).assert_outcomes(passed=checks)
    # What is no secret still tells captures apart.
    target.write_text(text.replace('"--level", "0"', '"--level", "1"'))
    pytester.runpytest_inprocess(f"--atom-replay={saved}", target).assert_outcomes(skipped=checks)


def test_the_schema_of_a_checkout_is_named_from_the_drafted_spec(
    atomtrace: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = saved_capture(tmp_path)
    root = SCHEMA_FILE.parents[3]
    monkeypatch.chdir(root)
    result = atomtrace("spec", "new", "--from-capture", capture)
    assert result.out.startswith(f"# yaml-language-server: $schema={SCHEMA_FILE.relative_to(root)}\n")


def test_an_unhealthy_capture_gives_no_spec(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    capture = saved_capture(tmp_path, Recipe(), Recipe(lost=frozenset(range(10, 20))))
    result = atomtrace("spec", "new", "--from-capture", capture)
    assert result.code == 2
    assert "cannot be believed" in result.err


def test_a_plain_trace_directory_asks_for_the_case(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    result = atomtrace("spec", "new", "--from-capture", write_ranks(tmp_path / "t", Recipe(), Recipe()))
    assert "model: ORGANISATION/MODEL" in result.out
    assert located(read(tmp_path, result.out)) == []


def test_too_few_steady_steps_give_counts_and_no_budget(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    place = write_ranks(tmp_path / "t", Recipe(decode_steps=15))
    result = atomtrace("spec", "new", "--from-capture", place)
    assert "per_step: 4" in result.out
    assert "# No time budgets" in result.out
    assert located(read(tmp_path, result.out)) == []
