"""Wrong marks stop the run at collection: one message, exit 4, nothing started."""

from __future__ import annotations

import pytest

MODES = {"no xdist": (), "two workers": ("-n", "2"), "xdist off": ("-p", "no:xdist")}
HEAD = "atomtrace found"


@pytest.fixture(params=list(MODES.values()), ids=list(MODES))
def mode(request: pytest.FixtureRequest) -> tuple[str, ...]:
    arguments: tuple[str, ...] = request.param
    return arguments


def run(pytester: pytest.Pytester, *arguments: str) -> tuple[int, str]:
    result = pytester.runpytest_subprocess("--atom-backend=sim", *arguments)
    return int(result.ret), result.stdout.str() + result.stderr.str()


def test_every_mistake_is_listed_with_place_and_suggestion(pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    pytester.makepyfile(
        test_one="""
        import pytest

        @pytest.mark.atom_case(model="m", cnc=3)
        def test_key(atom_trace): pass

        @pytest.mark.atom_case(model="m", tp=0, osl="x")
        def test_values(atom_trace): pass

        def test_unmarked(atom_trace): pass

        @pytest.mark.atom_case(model="m", conc=[8, 8])
        def test_twice(atom_trace): pass

        @pytest.mark.atom_case(model="m", server_args=["--torch-profiler-dir=/x"])
        def test_owned(atom_trace): pass
        """
    )
    code, text = run(pytester, *mode)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert text.count(HEAD) == 1
    assert "test_one.py:3: @pytest.mark.atom_case: unknown key 'cnc' (did you mean 'conc'?)" in text
    assert "test_one.py:6: @pytest.mark.atom_case: tp must be a whole number of at least 1, got 0" in text
    assert "test_one.py:6: @pytest.mark.atom_case: osl must be a whole number of at least 2" in text
    assert "test_one.py:9: uses atom_trace or atom_case without a mark" in text
    assert "test_one.py:11: @pytest.mark.atom_case: conc lists 8 twice" in text
    assert "server_args may not hold --torch-profiler-dir: the harness binds the profiler" in text
    assert "in test_one.py::test_key" in text
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text


def test_a_shared_mark_is_listed_once_with_the_count(pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    tests = "\n".join(f"def test_{i}(atom_trace): pass" for i in range(30))
    pytester.makepyfile(f"import pytest\npytestmark = pytest.mark.atom_case(model='m', tpp=8)\n{tests}\n")
    code, text = run(pytester, *mode)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert text.count("unknown key 'tpp'") == 1
    assert "::test_0 and 29 more" in text


def test_one_wrong_file_of_three_stops_them_all(
    pytester: pytest.Pytester, mode: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = pytester.path / "ledger.jsonl"
    monkeypatch.setenv("ATOMTRACE_SIM_LEDGER", str(ledger))
    good = """
        import pytest

        @pytest.mark.atom_case(model="openai/gpt-oss-120b", isl=64, conc=2)
        def test_it(atom_trace): pass

        def test_plain():
            open("ran", "w").close()
        """
    pytester.makepyfile(test_a=good, test_b=good.replace("conc=2", "conk=2"), test_c=good)
    code, text = run(pytester, *mode)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert text.count(HEAD) == 1
    assert "did you mean 'conc'?" in text
    assert not ledger.exists()
    assert not (pytester.path / "ran").exists()


def test_marks_of_tests_without_our_fixtures_are_checked_like_the_others(
    pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    pytester.makepyfile(
        test_one="""
        import pytest

        @pytest.mark.atom_case(model="m", cnc=3)
        def test_key(): pass

        @pytest.mark.atom_case(model="m", tp=0)
        @pytest.mark.parametrize("x", [1, 2])
        def test_value(x): pass
        """
    )
    code, text = run(pytester, *mode)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "test_one.py:3: @pytest.mark.atom_case: unknown key 'cnc' (did you mean 'conc'?)" in text
    assert "test_one.py:6: @pytest.mark.atom_case: tp must be a whole number of at least 1, got 0" in text
    assert "2 mistakes" in text


def test_a_mark_that_no_test_uses_warns_with_its_place(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_one="""
        import pytest

        @pytest.mark.atom_case(model="m", conc=[4, 8])
        def test_idle(): pass

        @pytest.fixture
        def own(atom_case): return atom_case

        @pytest.mark.atom_case(model="m")
        def test_through_a_fixture(own): pass

        @pytest.mark.atom_case(model="m")
        class TestPart:
            def test_plain(self): pass

            def test_case(self, atom_case): pass

            @pytest.mark.atom_case(conc=4)
            def test_idle_here(self): pass
        """,
        test_two="""
        import pytest

        pytestmark = pytest.mark.atom_case(model="m")

        def test_a(): pass

        def test_b(): pass
        """,
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=7, warnings=3)
    text = result.stdout.str()
    assert "test_one.py:3: @pytest.mark.atom_case does nothing, since test_one.py::test_idle uses neither" in text
    assert "test_one.py:18: @pytest.mark.atom_case does nothing, since test_one.py::TestPart::test_idle_here" in text
    assert "test_two.py:3: @pytest.mark.atom_case does nothing, since test_two.py::test_a uses neither" in text


def test_where_warnings_are_errors_such_a_mark_is_a_mistake(pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.atom_case(model='m')\ndef test_idle(): pass\n")
    code, text = run(pytester, "-W", "error", *mode)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "does nothing, since" in text
    assert "INTERNALERROR" not in text


def test_two_marks_on_one_function_are_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.atom_case(model="m")
        @pytest.mark.atom_case(model="n")
        def test_it(atom_trace): pass
        """
    )
    code, text = run(pytester)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "two marks on one function" in text


def test_a_mark_in_param_comes_too_late_and_says_so(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.atom_case(model="m")
        @pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.atom_case(tp=2))])
        def test_it(atom_trace, x): pass
        """
    )
    code, text = run(pytester)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "comes too late" in text


def test_different_cases_with_one_name_are_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_a="import pytest\n@pytest.mark.atom_case(model='amd/M')\ndef test_a(atom_trace): pass\n",
        test_b="import pytest\n@pytest.mark.atom_case(model='nvidia/M')\ndef test_b(atom_trace): pass\n",
    )
    code, text = run(pytester)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "two different cases share the name M-tp1-isl1024-osl128-conc64" in text
    assert "'amd/M' / 'nvidia/M'" in text


def test_closest_mark_wins_field_by_field(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.atom_case(model="m", tp=8, conc=[32, 64])

        @pytest.mark.atom_case(isl=512)
        class TestGroup:
            @pytest.mark.atom_case(conc=4)
            def test_it(self, atom_case):
                assert (atom_case.tp, atom_case.isl, atom_case.conc) == (8, 512, 4)

        def test_matrix(atom_case):
            assert atom_case.isl == 1024
        """
    )
    result = pytester.runpytest_subprocess("-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [
            "*::TestGroup::test_it[[]m-tp8-isl512-osl128-conc4[]] PASSED*",
            "*::test_matrix[[]m-tp8-isl1024-osl128-conc32[]] PASSED*",
            "*::test_matrix[[]m-tp8-isl1024-osl128-conc64[]] PASSED*",
        ]
    )


def test_what_is_seldom_meant_warns_at_collection(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.atom_case(model="m", prompts_per_slot=10)
        def test_it(atom_case): pass
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, warnings=1)
    assert "prompts_per_slot=10: a trace grows with every request" in result.stdout.str()


ENVIRONMENT = {
    "ATOMTRACE_BACKENT": (
        "sim",
        "environment variable ATOMTRACE_BACKENT is no setting. Did you mean ATOMTRACE_BACKEND?",
    ),
    "ATOMTRACE_QQQ": ("1", "ATOMTRACE_QQQ is no setting. pytest --help lists them all."),
    "ATOMTRACE_KEEP": ("al", "ATOMTRACE_KEEP: 'al' is not one of all, failed, none. Did you mean 'all'?"),
    "ATOMTRACE_WAIVERS": ("nowhere.yaml", "ATOMTRACE_WAIVERS: nowhere.yaml does not exist"),
    "ATOMTRACE_REPLAY": ("nowhere", "ATOMTRACE_REPLAY: "),
}
CASE = "import pytest\n@pytest.mark.atom_case(model='m')\ndef test_case(atom_case): open('ran', 'w').close()\n"


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, ()) for name in ENVIRONMENT), ("ATOMTRACE_BACKENT", ("-n", "2"))], ids=str
)
def test_a_wrong_variable_stops_only_runs_that_have_a_test_with_a_case(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str, mode: tuple[str, ...]
) -> None:
    value, words = ENVIRONMENT[name]
    monkeypatch.setenv(name, value)
    pytester.makepyfile(test_plain="def test_it(): pass")
    plain = pytester.runpytest_subprocess(*mode)
    plain.assert_outcomes(passed=1)
    assert name not in plain.stdout.str() + plain.stderr.str()
    pytester.makepyfile(test_spec=CASE)
    result = pytester.runpytest_subprocess(*mode)
    text = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert text.count(words) == 1, text
    assert "INTERNALERROR" not in text
    assert not (pytester.path / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--atom-backend=simm",),
            "--atom-backend: 'simm' is not one of auto, atom, attach, sim, replay. Did you mean 'sim'?",
        ),
        (("--atom-lock-timeout=5 parsecs",), "--atom-lock-timeout: '5 parsecs' is not a duration"),
        (("--atom-backend=replay",), "needs the directory of the saved captures: --atom-replay=DIR"),
        (("--atom-backend=sim", "--atom-replay=x"), "exclude each other"),
        (("-o", "atom_port=many"), "ini atom_port: 'many' is not a whole number"),
        (("--atom-port=70000",), "--atom-port: '70000' is not a whole number from 1 to 65535 (0: a free port)"),
        (("--atom-port=-1",), "--atom-port: '-1' is not a whole number from 1 to 65535 (0: a free port)"),
        (("--atom-waivers=nowhere.yaml",), "--atom-waivers: nowhere.yaml does not exist"),
        (("-o", "atom_waivers=perf_specs/waivers.yaml"), "ini atom_waivers: perf_specs/waivers.yaml does not exist"),
    ],
)
def test_wrong_options_name_their_source(pytester: pytest.Pytester, arguments: tuple[str, ...], words: str) -> None:
    result = pytester.runpytest_subprocess(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert words in result.stderr.str()


@pytest.mark.parametrize("option", ["--atom-workload=builtin", "--atom-backend=sim", "--atom-window-steps=20"])
def test_benchmark_arguments_that_nobody_would_take_are_refused_at_collection(
    pytester: pytest.Pytester, mode: tuple[str, ...], option: str
) -> None:
    pytester.makepyfile(
        test_one="""
        import pytest

        @pytest.mark.atom_case(model="m", bench_args=["--burstiness", "2"])
        def test_bench(atom_trace): pass
        """
    )
    pytester.path.joinpath("two.atom.yaml").write_text(
        "case: {model: m, conc: 2, bench_args: [--burstiness, '2']}\nkernels:\n  - called: a\n"
    )
    code, text = run(pytester, option, *mode)
    assert code == pytest.ExitCode.USAGE_ERROR
    said = "bench_args (--burstiness) are for ATOM's benchmark client"
    assert f"test_one.py:3: @pytest.mark.atom_case: {said}, and {option.partition('=2')[0]} takes the built-in" in text
    assert f"two.atom.yaml:1:7: {said}" in text
