"""Every error keeps its facts, speaks in sentences and survives pickling."""

from __future__ import annotations

import pickle

import pytest

import pytest_atomtrace.errors as tree
from pytest_atomtrace import AtomTraceError, InconclusiveError, InfraError

SAMPLES: dict[str, AtomTraceError] = {
    "AtomTraceError": tree.AtomTraceError("x"),
    "ConfigError": tree.ConfigError("tp=0", "marker at a.py:3"),
    "InconclusiveError": tree.InconclusiveError("no answer"),
    "UnhealthyTraceError": tree.UnhealthyTraceError(["H02 truncated: rank_1"], "atomtrace health x"),
    "NoBaselineError": tree.NoBaselineError("case", "missing", "nothing there", "pytest ..."),
    "NoStepsError": tree.NoStepsError("draft", ["decode"], "hint"),
    "InsufficientStepsError": tree.InsufficientStepsError("decode", "p99", 12, 200, rank="rank_0", hint="Raise osl."),
    **{
        name: getattr(tree, name)("/t/x.json.gz", "ends early", "rank_3", 4096, compressed_offset=True)
        for name in ("TraceFileError", "TruncatedTraceError", "MalformedTraceError", "EmptyTraceError")
    },
    **{
        name: getattr(tree, name)("what", "what to do", ["log line"])
        for name in (
            "InfraError", "LeaseError", "LaunchError", "WindowError", "WorkloadError", "ExportError", "StoreError",
            "RememberedFailureError",
        )
    },
}  # fmt: skip


def test_every_class_has_a_sample() -> None:
    assert set(SAMPLES) == set(tree.__all__)


@pytest.mark.parametrize("error", SAMPLES.values(), ids=SAMPLES.keys())
def test_errors_survive_pickling_with_their_facts(error: AtomTraceError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_no_answer_and_trouble_are_no_assertions() -> None:
    for error in SAMPLES.values():
        assert not isinstance(error, AssertionError)
    assert not issubclass(InconclusiveError, InfraError)


def test_sentences_carry_the_facts() -> None:
    assert str(SAMPLES["TruncatedTraceError"]) == (
        "rank rank_3: /t/x.json.gz: ends early at byte 4,096 of the compressed file"
    )
    assert str(SAMPLES["InsufficientStepsError"]) == (
        "Insufficient steps: p99 of decode needs 200 steady steps, the trace has 12 on rank_0. Raise osl."
    )
    assert str(SAMPLES["ConfigError"]) == "marker at a.py:3: tp=0"
    assert str(SAMPLES["LaunchError"]).splitlines() == ["what", "what to do", "  | log line"]
