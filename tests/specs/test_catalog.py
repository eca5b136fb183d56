"""ATOM's catalog of models: expansion, cases, the marker, the spec key, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pytest_atomtrace import ConfigError
from pytest_atomtrace.cases.catalog import CATALOG_IN_ATOM, MAX_BYTES, Catalog, find_catalog, load_catalog
from tests.specs.models import CELLS, JSON_ARGUMENT, MODELS, STRUCTURED, VARIANTS, write_catalog
from tests.specs.reading import located, read

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return load_catalog(write_catalog(tmp_path))


def test_the_totals_are_those_counted_by_hand(catalog: Catalog) -> None:
    assert len({one.prefix for one in catalog.variants}) == MODELS
    assert len(catalog.variants) == VARIANTS
    assert len(list(catalog.cells())) == CELLS == 14


def test_cells_are_named_as_atoms_ci_names_results(catalog: Catalog) -> None:
    assert [cell.result_filename for cell in catalog.cells()] == [
        "big-model-1024-1024-2-0.8",
        "big-model-1024-1024-4-0.8",
        "big-model-1024-1024-64-0.8",
        "big-model-1024-1024-256-0.8",
        "big-model-8192-1024-4-0.8",
        "big-model-mtp3-1024-1024-4-0.8",
        "big-model-mtp3-1024-1024-64-0.8",
        "big-model-mtp3-1024-1024-256-0.8",
        "big-model-mtp3-8192-1024-4-0.8",
        "big-model-dpa-spark-1024-1024-512-0.8",
        "big-model-dpa-spark-8192-1024-1024-0.8",
        "small-100-10-16-1",
        "middle-512-64-1-0.8",
        "middle-512-64-8-0.8",
    ]


def test_arguments_are_composed_in_atoms_order(catalog: Catalog) -> None:
    by_name = {one.display: one for one in catalog.variants}
    assert by_name["Big-Model MTP3"].args == (
        "--kv_cache_dtype fp8 -tp 8 --trust-remote-code --index_cache_dtype fp4 --no-enable_prefix_caching "
        "--method mtp --num-speculative-tokens 3"
    )
    assert by_name["Big-Model DPA Spark"].env_vars == "SHARED_A=0\nSHARED_B=x=y\nNUMA=1"
    assert by_name["Big-Model DPA Spark"].path == "maker/Big-Model-Spark"
    assert by_name["Small"].args == "--kv_cache_dtype auto"
    assert by_name["Small"].runner == "one-gpu"


def test_a_case_holds_fields_where_the_catalog_holds_arguments(catalog: Catalog) -> None:
    (spark,) = {case.server_args: case for case in catalog.expand("big-model", variants=["DPA Spark"])}.values()
    assert (spark.model, spark.tp, spark.dp_attention) == ("maker/Big-Model-Spark", 8, True)
    assert spark.server_args == (
        "--kv_cache_dtype",
        "fp8",
        "--trust-remote-code",
        "--index_cache_dtype",
        "fp4",
        "--no-enable_prefix_caching",
        "--spark-config",
        JSON_ARGUMENT,
    )
    assert spark.env == (("NUMA", "1"), ("SHARED_A", "0"), ("SHARED_B", "x=y"))
    assert spark.chat_template is None
    mtp = catalog.expand("maker/Big-Model", variants=["-mtp3"])[0]
    assert (mtp.chat_template, mtp.bench_args, mtp.speculative_tokens) == (True, ("--seed", "7"), 3)


def test_all_cells_are_cases_with_names_of_their_own(catalog: Catalog) -> None:
    cases = [case for model in ("small", "middle") for case in catalog.expand(model)]
    cases += catalog.expand("big-model", variants=["", "MTP3", "DPA Spark"])
    assert len({case.slug for case in cases}) == CELLS
    assert {(case.isl, case.osl, case.conc, case.range_ratio) for case in cases if case.model == "maker/Small"} == {
        (100, 10, 16, 1)
    }


@pytest.mark.parametrize(
    ("fields", "loads"),
    [
        ({"conc": 64}, [(1024, 1024, 64, 0.8), (8192, 1024, 64, 0.8)]),
        ({"isl": 128, "osl": 16, "conc": [4, 8]}, [(128, 16, 4, 0.8), (128, 16, 8, 0.8)]),
        ({"isl": 128, "conc": 4, "range_ratio": 1.0}, [(128, 1024, 4, 1.0)]),
        ({"isl": [1, 2], "osl": 16, "conc": [1, 4]}, [(1, 16, 4, 0.8), (2, 16, 4, 0.8)]),
    ],
)
def test_fields_stand_in_for_the_scenarios_and_the_band_still_applies(
    catalog: Catalog, fields: Mapping[str, object], loads: list[tuple[object, ...]]
) -> None:
    cases = catalog.expand("big-model", variants=["MTP3"], fields=fields)
    assert [(case.isl, case.osl, case.conc, case.range_ratio) for case in cases] == loads


def test_variants_of_which_the_band_leaves_nothing_vanish(catalog: Catalog, tmp_path: Path) -> None:
    # 64 lies in the bands of the base and MTP3, not in 512..2048 and 2000..4000.
    spec = read(tmp_path, "from_catalog: {model: big-model, conc: 64, isl: 8}\nlaunch: {mean: 1 ms}\n", catalog)
    assert located(spec) == []
    assert [(one.case.model, one.case.chat_template) for one in spec.cases] == [
        ("maker/Big-Model", None),
        ("maker/Big-Model", True),
    ]
    cells = [cell.variant.display for cell in catalog.cells() if cell.variant.prefix == "big-model"]
    whole = catalog.expand("big-model")
    assert len(whole) == len(cells)
    assert "Big-Model Huge" not in cells


def test_a_selection_of_which_nothing_is_left_names_every_variant(catalog: Catalog) -> None:
    with pytest.raises(ConfigError) as caught:
        catalog.expand("big-model", variants=["MTP3", "Huge"], fields={"conc": 1})
    assert caught.value.problem == (
        "no case is left of Big-Model MTP3: its concurrencies are 4 to 256, asked for: 1; nor of Big-Model Huge: its "
        "concurrencies are 2000 to 4000, asked for: 1"
    )


def test_a_mark_runs_what_the_bands_leave(pytester: pytest.Pytester) -> None:
    write_catalog(pytester.path)
    pytester.makepyfile(
        "import pytest\n"
        "@pytest.mark.atom_catalog('big-model', conc=64, isl=8, osl=64, range_ratio=1.0)\n"
        "def test_it(atom_case):\n"
        "    assert atom_case.conc == 64\n"
    )
    pytester.runpytest_inprocess("--atom-catalog=models.json").assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("model", "variants", "fields", "says"),
    [
        ("big-modl", None, {}, "the catalog has no model 'big-modl' (did you mean 'big-model'?)"),
        ("big-model", ["MTP4"], {}, "Big-Model has no variant 'MTP4' (it has '', 'MTP3', 'DPA Spark', 'Huge')"),
        ("big-model", ["MTP3"], {"conc": [1, 2]}, "no case is left of Big-Model MTP3: its concurrencies are 4 to 256"),
        ("big-model", ["Huge"], {}, "no case is left of Big-Model Huge: its concurrencies are 2000 to 4000"),
        ("big-model", [""], {"tp": 4}, "tp comes from the catalog; one may set isl, osl"),
        ("big-model", [""], {"conc": "many"}, "conc must be a whole number of at least 1, got 'many'"),
    ],
)
def test_what_the_catalog_cannot_give_is_refused(
    catalog: Catalog, model: str, variants: list[str] | None, fields: Mapping[str, object], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        catalog.expand(model, variants=variants, fields=fields)
    assert says in str(caught.value)


def test_a_bare_list_is_the_older_form(tmp_path: Path) -> None:
    catalog = load_catalog(write_catalog(tmp_path, STRUCTURED["models"]))
    assert len(catalog.variants) == VARIANTS
    # No default scenarios in a list: only models with their own have cells.
    assert [cell.result_filename for cell in catalog.cells()] == [
        "small-100-10-16-1",
        "middle-512-64-1-0.8",
        "middle-512-64-8-0.8",
    ]
    with pytest.raises(ConfigError, match="the catalog has no scenarios for Big-Model; give isl, osl, conc"):
        catalog.expand("big-model")
    cases = catalog.expand("big-model", variants=[""], fields={"isl": 64, "osl": 16, "conc": [8, 999]})
    assert [(case.isl, case.conc) for case in cases] == [(64, 8)]


def test_a_flat_list_has_an_entry_per_variant(tmp_path: Path) -> None:
    flat = [
        {
            "display": "M",
            "path": "x/M",
            "prefix": "m",
            "args": "--kv_cache_dtype fp8 -tp 2",
            "bench_args": "",
            "suffix": "",
        },
        {
            "display": "M MTP",
            "path": "x/M",
            "prefix": "m",
            "args": "--kv_cache_dtype fp8 --tensor-parallel-size=2 --method mtp",
            "bench_args": "--use-chat-template",
            "suffix": "-mtp3",
            "env_vars": "A=1",
        },
    ]
    catalog = load_catalog(write_catalog(tmp_path, flat))
    base, mtp = catalog.expand("m", fields={"isl": 64, "osl": 16, "conc": 8})
    assert (base.tp, base.chat_template, base.server_args) == (2, None, ("--kv_cache_dtype", "fp8"))
    assert (mtp.tp, mtp.chat_template, mtp.env) == (2, True, (("A", "1"),))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no catalog of models: Input data was truncated"),
        ("{", "no catalog of models"),
        ('{"models": [{"display": "x"}]}', "missing required field `path` - at `$.models[0]`"),
        (
            '{"models": [{"display": 1, "path": "p", "prefix": "q"}]}',
            "Expected `str`, got `int` - at `$.models[0].display`",
        ),
        ('[{"display": "x", "path": "p", "prefix": "q", "config": {"tp": "8"}}]', "Expected `int | null`, got `str`"),
        ("[" * 100_000, "no catalog of models"),
        ('"models"', "no catalog of models"),
        (" " * (MAX_BYTES + 1), "the catalog has more than 4,194,304 bytes"),
    ],
)
def test_a_file_that_is_no_catalog_is_named_with_the_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "models.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_catalog(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"env_vars": "A"}, "the line 'A' of env_vars is no NAME=VALUE"),
        ({"config": {"extra_args": "--x 'open"}}, "server arguments are no shell words (No closing quotation)"),
    ],
)
def test_texts_that_no_shell_would_take_are_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    model = {"display": "M", "path": "x/M", "prefix": "m", **change}
    catalog = load_catalog(write_catalog(tmp_path, [model]))
    with pytest.raises(ConfigError) as caught:
        catalog.expand("m", fields={"isl": 1, "osl": 2, "conc": 3})
    assert says in str(caught.value)


def test_auto_is_the_catalog_of_the_checkout(tmp_path: Path) -> None:
    assert find_catalog("auto", "", base=tmp_path) is None
    assert find_catalog("auto", "ATOM", base=tmp_path) is None
    place = tmp_path / "ATOM" / CATALOG_IN_ATOM
    place.parent.mkdir(parents=True)
    place.write_text("[]")
    assert find_catalog("auto", "ATOM", base=tmp_path) == place
    assert find_catalog(str(tmp_path / "ATOM"), "", base=tmp_path) == place
    assert find_catalog("other.json", "", base=tmp_path) == tmp_path / "other.json"


# In YAML and in marks


def test_a_spec_takes_its_cases_from_the_catalog(tmp_path: Path, catalog: Catalog) -> None:
    text = """
    defaults: {range_ratio: 1.0}
    from_catalog:
      - {model: big-model, variants: ["", MTP3], isl: 64, osl: 16, conc: [4, 8]}
      - small
    launch: {mean: 1 ms}
    """
    spec = read(tmp_path, text, catalog)
    assert located(spec) == []
    assert [(one.case.model, one.case.chat_template, one.case.conc) for one in spec.cases] == [
        ("maker/Big-Model", None, 4),
        ("maker/Big-Model", None, 8),
        ("maker/Big-Model", True, 4),
        ("maker/Big-Model", True, 8),
        ("maker/Small", None, 16),
    ]
    assert {one.case.range_ratio for one in spec.cases} == {1.0}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("bg-model", "1:15: from_catalog: the catalog has no model 'bg-model' (did you mean 'big-model'?)"),
        ("{model: big-model, variants: [MTP9]}", "1:15: from_catalog: Big-Model has no variant 'MTP9'"),
        ("{model: big-model, variant: [MTP3]}", "1:34: from_catalog: unknown key 'variant' (did you mean 'variants'?)"),
        ("{variants: [MTP3]}", "1:15: from_catalog: model is missing"),
        ("{model: big-model, tp: 4}", "from_catalog.tp: tp comes from the catalog"),
        ("{model: small, conc: [0]}", "from_catalog.conc: conc must be a whole number of at least 1, got 0"),
        ("5", "1:15: from_catalog: expected a model of the catalog, or a mapping, got the number 5"),
    ],
)
def test_a_wrong_question_to_the_catalog_is_located(tmp_path: Path, catalog: Catalog, value: str, says: str) -> None:
    problems = located(read(tmp_path, f"from_catalog: {value}\nlaunch: {{mean: 1 ms}}\n", catalog))
    assert any(problem.startswith(says) or says in problem for problem in problems), problems


MARKED = """
    import pytest

    pytestmark = [
        pytest.mark.gpu,
        pytest.mark.atom_catalog("big-model", variants=["", "MTP3"], isl=64, osl=16),
    ]

    @pytest.mark.atom_case(conc=[4, 8])
    def test_it(atom_case):
        assert atom_case.model == "maker/Big-Model"
"""
FROM_CATALOG = "from_catalog: {model: small}\nkernels: [{called: x}]\n"


def test_the_marker_stacks_with_atom_case(pytester: pytest.Pytester) -> None:
    write_catalog(pytester.path)
    pytester.makepyfile(MARKED)
    for mode in ((), ("-n", "2")):
        result = pytester.runpytest_subprocess("--atom-catalog=models.json", "-v", *mode)
        result.assert_outcomes(passed=4)
    assert "test_it[Big-Model-tp8-isl64-osl16-conc4-rr0.8-" in result.stdout.str()


def test_without_a_catalog_its_tests_skip_and_say_how_to_give_one(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(MARKED)
    (pytester.path / "s.atom.yaml").write_text(FROM_CATALOG)
    result = pytester.runpytest_subprocess("-rs", "-m", "gpu")
    result.assert_outcomes(skipped=2)
    assert "no catalog of models: give --atom-catalog=PATH, or --atom-root" in result.stdout.str()


@pytest.mark.parametrize("mode", [(), ("-n", "2")], ids=["no xdist", "two workers"])
def test_a_catalog_that_cannot_be_read_is_one_usage_error(pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    pytester.makepyfile(MARKED)
    (pytester.path / "s.atom.yaml").write_text(FROM_CATALOG)
    result = pytester.runpytest_subprocess("--atom-catalog=gone.json", *mode)
    text = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert text.count("atomtrace found") == 1
    assert "s.atom.yaml:1:15: from_catalog: " in text
    assert "gone.json: the catalog cannot be read: No such file or directory" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ('"big-modle"', "the catalog has no model 'big-modle' (did you mean 'big-model'?)"),
        ('["big-model"]', "takes one model of the catalog, got ['big-model']"),
        ('"big-model", variants=[3]', "variants must be a list of labels, got [3]"),
        ('"big-model", tp=4', "tp comes from the catalog"),
        ('"big-model", cnc=4', "unknown key 'cnc' (did you mean 'conc'?)"),
    ],
)
def test_a_wrong_mark_is_a_usage_error(pytester: pytest.Pytester, mark: str, says: str) -> None:
    write_catalog(pytester.path)
    pytester.makepyfile(f"import pytest\n@pytest.mark.atom_catalog({mark})\ndef test_it(atom_case): pass\n")
    result = pytester.runpytest_inprocess("--atom-catalog=models.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert ":2: @pytest.mark.atom_catalog: " in result.stderr.str()
    assert says in result.stderr.str()


def test_a_mark_needs_no_yaml_and_no_numpy(pytester: pytest.Pytester) -> None:
    write_catalog(pytester.path)
    pytester.makepyfile(MARKED)
    pytester.makeconftest(
        "import json, sys\n"
        "def pytest_collection_finish(session):\n"
        "    print('LOADED', json.dumps([m for m in ('yaml', 'numpy', 'aiohttp') if m in sys.modules]))\n"
    )
    result = pytester.runpytest_subprocess(
        "--atom-catalog=models.json", "--collect-only", "-s", "-p", "no:hypothesispytest"
    )
    line = next(line for line in result.stdout.lines if "LOADED" in line)
    assert json.loads(line.partition("LOADED ")[2]) == []
