"""Every row of the settings table from every source."""

from __future__ import annotations

import pytest

from pytest_atomtrace import ConfigError
from pytest_atomtrace.settings import Row, Settings, rows

SAMPLES: dict[str, tuple[object, object, object]] = {
    "flag": (True, True, True),
    "count": ("7", 7, 8),
    "port": ("8006", 8006, 8007),
    "duration": ("90 s", 90.0, 91.0),
    "path": ("some/where", "some/where", "else/where"),
    "share": ("4 %", "4 %", "5 %"),
    "size": ("4 GB", "4 GB", "5 GB"),
    "url": ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "http://127.0.0.1:8001"),
}
# Settings that only make sense with another one beside them.
COMPANIONS = {
    "attach": {"atom_attach_trace_dir": "traces"},
    "attach_trace_dir": {"atom_attach": "http://127.0.0.1:8000"},
}


def samples(row: Row) -> tuple[object, object, object]:
    if row.name == "backend":
        return "sim", "sim", "atom"
    if row.choices:
        return row.choices[-1], row.choices[-1], row.choices[0]
    return SAMPLES[row.kind]


def resolved(row: Row, **sources: object) -> object:
    cli = {row.dest: sources["cli"]} if "cli" in sources else {}
    env = {row.env: str(sources["env"])} if "env" in sources else {}
    ini = {row.ini: str(sources["ini"])} if "ini" in sources else {}
    cli |= COMPANIONS.get(row.name, {})
    if row.name == "replay":
        return Settings.resolve(cli=cli, env=env, ini=ini).replay
    return getattr(Settings.resolve(cli=cli, env=env, ini=ini), row.name)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
@pytest.mark.parametrize("source", ["cli", "env", "ini"])
def test_each_row_is_read_from_each_source(row: Row, source: str) -> None:
    text, value, _ = samples(row)
    assert resolved(row, **{source: text}) == value
    if row.name not in COMPANIONS:
        assert resolved(row) == row.default


@pytest.mark.parametrize("row", [row for row in rows() if row.kind != "flag"], ids=lambda row: row.name)
def test_command_line_beats_environment_beats_ini(row: Row) -> None:
    first, value, second = samples(row)
    other = f"{second:g} s" if row.kind == "duration" and isinstance(second, float) else second
    assert resolved(row, cli=first, env=other, ini=other) == value
    assert resolved(row, env=first, ini=other) == value


def test_all_wrong_values_come_in_one_message() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.resolve(
            cli={"atom_port": "x"}, env={"ATOMTRACE_EXPORT_TIMEOUT": "soon"}, ini={"atom_require_gpu": "perhaps"}
        )
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "ini atom_require_gpu",
        "ATOMTRACE_EXPORT_TIMEOUT",
        "--atom-port",
    ]


def test_a_misspelt_variable_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean ATOMTRACE_BACKEND"):
        Settings.resolve(cli={}, env={"ATOMTRACE_BACKENT": "sim"}, ini={})


def test_the_simulators_own_variables_are_left_alone() -> None:
    env = {"ATOMTRACE_SIM_SEED": "1", "ATOMTRACE_RUN_TOKEN": "x"}
    assert Settings.resolve(cli={}, env=env, ini={}) == Settings.resolve(cli={}, env={}, ini={})


def test_settings_survive_the_way_to_a_worker() -> None:
    settings = Settings.resolve(cli={"atom_backend": "sim", "atom_lock_timeout": "5 s"}, env={}, ini={})
    assert Settings.from_dict(settings.as_dict()) == settings


def test_help_shows_every_row_with_its_default(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--help")
    text = " ".join(result.stdout.str().split())
    for row in rows():
        assert row.option in text
        assert f"env {row.env}" in text
    assert "longest server start, from launch to ready; default: 45 min [ini atom_start_timeout" in text
