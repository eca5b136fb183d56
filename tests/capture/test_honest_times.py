"""The pass without the profiler, windows of full batches only, chat prompts: what the figures are of."""

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.acceptance import DraftCounts
from pytest_atomtrace.capture.chat_template import decide
from pytest_atomtrace.capture.collect import profiler_overhead
from pytest_atomtrace.errors import WorkloadError
from pytest_atomtrace.settings import Settings
from tests.capture.conftest import Rig, small_case

if TYPE_CHECKING:
    from pathlib import Path

MTP = ("--method", "mtp", "--num-speculative-tokens", "3")


def bench_of(directory: Path) -> dict[str, object]:
    value = json.loads((directory / "bench.json").read_text())
    assert isinstance(value, dict)
    return value


def test_the_unprofiled_pass_runs_before_the_window_with_prompts_of_its_own(rig: Rig) -> None:
    case = small_case()
    capture = rig.session(bench="on").obtain(case, needed=[case], test_id="t")
    stages = [stage["stage"] for stage in capture.manifest["stages"]]  # type: ignore[attr-defined]
    assert stages == ["launch", "warm_up", "unprofiled", "start_profile", "workload", "export"]
    bench = bench_of(capture.directory)
    honest = bench["unprofiled"]
    assert isinstance(honest, dict)
    assert (honest["completed"], honest["output_tokens"]) == (4, 64)
    assert honest["tpot_ms"] != bench["tpot_ms"]
    overhead = capture.manifest["profiler_overhead"]
    assert isinstance(overhead, float)
    assert overhead == profiler_overhead(bench)
    # Nothing of that pass is in the trace: the window has its own four prefills only.
    log = (capture.directory / "server.log").read_text()
    assert log.count("arrived, input tokens: 64") == 4 * 3 + 1


def test_no_unprofiled_pass_means_no_ratio(rig: Rig) -> None:
    case = small_case(tp=1)
    capture = rig.session().obtain(case, needed=[case], test_id="t")
    assert capture.manifest["profiler_overhead"] is None
    assert "unprofiled" not in bench_of(capture.directory)


def labels(path: Path) -> list[str]:
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    named = [event for event in events if event.get("cat") == "user_annotation"]
    return [event["name"] for event in sorted(named, key=lambda event: event["ts"])]


def test_a_window_of_steps_holds_full_decode_batches_only(rig: Rig) -> None:
    rig.sim(STEP_MS=4)
    case = small_case(osl=150)
    capture = rig.session(window_steps=20).obtain(case, needed=[case], test_id="t")
    for path in capture.ranks.values():
        steps = [label for label in labels(path) if re.match(r"(prefill|decode)\[", label)]
        assert not [label for label in steps if label.startswith("prefill")]
        assert 20 <= len(steps) <= 60
        assert {re.search(r"bs=(\d+)", label)[1] for label in steps} == {"4"}  # type: ignore[index]
    bench = bench_of(capture.directory)
    assert bench["whole_window"] is False
    assert bench["output_tokens"] == 4 * 150, "the rest of the answers came after the export"
    workload = capture.manifest["workload"]
    assert isinstance(workload, dict)
    assert workload["window_steps"] == 20
    rig.assert_nothing_left()


def test_answers_too_short_for_the_window_are_named_with_the_remedy(rig: Rig) -> None:
    case = small_case(tp=1, osl=10)
    with pytest.raises(WorkloadError, match=r"requests ended before (200 steps|all slots)") as failed:
        rig.session(window_steps=200).obtain(case, needed=[case], test_id="t")
    assert "Raise osl" in failed.value.hint
    rig.assert_nothing_left()


def test_steps_cannot_be_counted_by_a_client_that_does_not_tell(rig: Rig) -> None:
    case = small_case()
    with pytest.raises(WorkloadError, match="--atom-window-steps needs the built-in workload"):
        rig.session(window_steps=20, workload="atom").obtain(case, needed=[case], test_id="t")
    assert rig.launches() == 0


def test_prompts_go_through_the_chat_route_where_the_case_asks_for_the_template(rig: Rig) -> None:
    case = small_case(tp=1, chat_template=True)
    capture = rig.session().obtain(case, needed=[case], test_id="t")
    log = (capture.directory / "server.log").read_text()
    assert log.count('"POST /v1/chat/completions HTTP/1.1" 200') == 1 + 4 + 4
    bench = bench_of(capture.directory)
    assert (bench["chat_template"], bench["completed"]) == (True, 4)
    assert bench["input_tokens_min"] == bench["input_tokens_max"] == 64


def test_the_acceptance_of_drafts_is_that_of_the_window(rig: Rig) -> None:
    rig.sim(ACCEPTANCE=0.5)
    case = small_case(tp=1, osl=64, server_args=MTP)
    capture = rig.session(bench="on").obtain(case, needed=[case], test_id="t")
    bench = bench_of(capture.directory)
    for figures in (bench, bench["unprofiled"]):
        assert isinstance(figures, dict)
        acceptance = figures["acceptance"]
        assert 0.2 < acceptance["rate"] < 0.8
        assert acceptance["length"] == pytest.approx(1 + 3 * acceptance["rate"], abs=1e-3)
        # 4 requests of 64 tokens, of which the first came from the prefill.
        assert acceptance["accepted_tokens"] < 4 * 64


def test_counts_that_nobody_knows_give_no_figure() -> None:
    assert DraftCounts().since(DraftCounts(3, 1), per_step=3) == {}
    assert DraftCounts(3, 1).since(DraftCounts(3, 1), per_step=3) == {}
    figures = DraftCounts(303, 151).since(DraftCounts(3, 1), per_step=3)
    assert figures == {"acceptance": {"draft_tokens": 300, "accepted_tokens": 150, "rate": 0.5, "length": 2.5}}


# Which prompts get the template


def model_with(tmp_path: Path, **config: object) -> str:
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(config))
    return str(tmp_path / "model")


def test_the_case_decides_first_and_without_drafts_nothing_is_wrapped(tmp_path: Path) -> None:
    model = model_with(tmp_path, chat_template="{{ messages }}")
    assert decide(small_case(model=model, chat_template=False, server_args=MTP), Settings(), {}).used is False
    assert decide(small_case(model=model, chat_template=True), Settings(), {}).used is True
    assert decide(small_case(model=model), Settings(), {}).used is False


@pytest.mark.parametrize(
    ("config", "used"), [({"chat_template": "{{ messages }}"}, True), ({"chat_template": None}, False), ({}, False)]
)
def test_drafts_get_the_template_that_the_tokenizer_has(tmp_path: Path, config: dict[str, object], used: bool) -> None:
    chosen = decide(small_case(model=model_with(tmp_path, **config), server_args=MTP), Settings(), {})
    assert chosen.used is used
    assert "tokenizer_config.json" in chosen.why


def test_a_template_in_a_file_of_its_own_counts_and_the_cache_of_hugging_face_is_looked_into(tmp_path: Path) -> None:
    snapshot = tmp_path / "hf" / "hub" / "models--org--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "chat_template.jinja").touch()
    case = small_case(model="org/model", server_args=MTP)
    assert decide(case, Settings(), {"HF_HOME": str(tmp_path / "hf")}).used is True
    nowhere = decide(case, Settings(), {"HF_HOME": str(tmp_path / "none")})
    assert (nowhere.used, nowhere.why) == (False, "the model's tokenizer_config.json was not found on this machine")


def test_the_catalog_is_asked_before_the_tokenizer(tmp_path: Path) -> None:
    model = model_with(tmp_path, chat_template="{{ messages }}")
    catalog = tmp_path / "models.json"
    row = {"display": "M", "path": model, "prefix": "m", "variants": [{"label": "MTP3", "extra_args": " ".join(MTP)}]}
    catalog.write_text(json.dumps({"models": [row]}))
    chosen = decide(small_case(model=model, server_args=MTP), Settings(catalog=str(catalog)), {})
    assert (chosen.used, "catalog" in chosen.why) == (False, True)
