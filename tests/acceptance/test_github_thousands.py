"""Three thousand failing checks on GitHub: its limits hold, and the time is bounded."""

from __future__ import annotations

import time

import pytest

from tests.plugin.dry_run import NO_ANNOTATOR, SPEC, dry_run
from tests.plugin.test_github_run import check_limits, without_id

CHECKS = 3000
# Per check, whole run: a tenth of it where nothing else runs.
LONGEST_S = 0.04 * CHECKS


@pytest.mark.slow
def test_three_thousand_failing_checks(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPEC.format(checks=CHECKS)
    start_s = time.monotonic()
    one = dry_run(pytester, monkeypatch, *NO_ANNOTATOR, "--tb=no", spec=spec)
    assert time.monotonic() - start_s < LONGEST_S
    check_limits(one, CHECKS)
    assert "left out here" in one.summary
    two = dry_run(pytester, monkeypatch, *NO_ANNOTATOR, "--tb=no", "-n", "2", spec=spec)
    check_limits(two, CHECKS)
    assert without_id(two.summary) == without_id(one.summary)
