"""An output directory that cannot be written is an infrastructure error with a remedy, and nothing is launched."""

from __future__ import annotations

import pytest

SPEC = """
    import pytest

    @pytest.mark.atom_case(model="openai/gpt-oss-120b", isl=16, osl=36, conc=4)
    def test_it(atom_trace): pass
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["no xdist", "one worker"])
def test_a_place_that_cannot_be_written_is_named_with_the_option(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    ledger = pytester.path / "ledger.jsonl"
    monkeypatch.setenv("ATOMTRACE_SIM_LEDGER", str(ledger))
    pytester.makepyfile(SPEC)
    pytester.makeini("[pytest]")
    (pytester.path / "file").touch()
    result = pytester.runpytest_subprocess(
        "--atom-backend=sim", f"--atom-lock-dir={pytester.path / 'locks'}", "--atom-output=file/below", *workers
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "*the output directory */file/below cannot be written: Not a directory*",
            "*Name a place with room for traces (tens of MB a rank): --atom-output=DIR*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    assert not ledger.exists()
