"""The one table of settings."""

from __future__ import annotations

import pickle

import pytest

from pytest_atomtrace.settings import Row, Settings, rows
from pytest_atomtrace.units import parse_duration_ns

DURATIONS = [row for row in rows() if row.kind == "duration"]


@pytest.mark.parametrize("row", DURATIONS, ids=lambda row: row.name)
def test_the_default_that_help_shows_for_a_duration_is_the_default(row: Row) -> None:
    assert row.default == parse_duration_ns(row.shown_default) / 1e9


def test_settings_are_their_values() -> None:
    one = Settings(port=3, tolerance="4 %")
    assert one == Settings(tolerance="4 %", port=3)
    assert one != Settings(port=3)
    assert hash(one) == hash(one.replace())
    assert one.replace(port=4).port == 4
    assert one.port == 3
    assert Settings.from_dict({**one.as_dict(), "of_a_newer_version": 1}) == one
    assert pickle.loads(pickle.dumps(one)) == one
    assert "port=3" in repr(one)


def test_settings_never_change_and_know_no_other_names() -> None:
    with pytest.raises(AttributeError, match="never change: port"):
        Settings().port = 3
    with pytest.raises(TypeError, match="no setting is called prot"):
        Settings(prot=3)


def test_every_default_is_of_its_rows_kind() -> None:
    # "" is how a row says "not given".
    for row in (row for row in rows() if row.default != ""):
        assert row.parse(row.default, where=row.option) == row.default
