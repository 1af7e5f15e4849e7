"""[heads] in permafeat.toml: other grids, and heads of a project's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from features_cache.errors import OptionError
from heads.estimators.catalogue import DEFAULT_HEADS, HEADS
from heads.estimators.own_heads import own_kinds
from heads.run import FitSettings, fit_heads
from heads.run_folder import load_heads, read_run
from heads.settings import FitSettings as Settings
from heads.submitting.submission import SubmitSettings, submit
from tests.heads_data import make_project

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("own"))


@pytest.mark.parametrize(
    ("table", "grid"),
    [
        ({"ridge": {"alpha": [1.0, 100.0, 10.0, 10.0]}}, (100.0, 10.0, 1.0)),
        ({"logistic": {"C": [0.1, 0.001]}}, (0.001, 0.1)),
        ({"logistic": {"C": 0.5}}, (0.5,)),
        ({"near": {"kind": "knn", "k": [1, 9]}}, (9, 1)),
        ({"mlp": {"epochs": [6, 4]}}, (4, 6)),
        ({"wide": {"kind": "mlp", "width": 512}}, HEADS["mlp"].grid),
    ],
)
def test_a_list_is_a_grid_from_simple_to_flexible_and_a_number_fixes(table, grid):
    (kind,) = own_kinds(table).values()
    assert kind.grid == grid


def test_epochs_before_the_grid_are_watched_and_the_schedule_ends_with_it():
    kinds = own_kinds({"mlp": {"epochs": [4, 6]}, "long": {"kind": "mlp", "epochs": 6, "schedule_epochs": 9}})
    assert kinds["mlp"].watched == (1, 2, 3, 5)
    assert kinds["mlp"].build(0).schedule_epochs == 6
    assert kinds["long"].build(0).schedule_epochs == 9


def test_a_head_keeps_a_seed_of_its_own_and_else_takes_the_run_s():
    kinds = own_kinds({"again": {"kind": "mlp", "seed": 7}, "wide": {"kind": "mlp", "width": 512}})
    assert [kind.build(3).seed for kind in kinds.values()] == [7, 3]


WRONG = {
    "unknown kind": ({"wide": {"kind": "mpl"}}, r"\[heads.wide\] kind is 'mpl'; expected one of ridge, .*did you mean 'mlp'\?"),
    "no kind": ({"rigde": {}}, r"\[heads.rigde\] has no kind; did you mean 'ridge'\?; expected kind = one of"),
    "another's kind": ({"ridge": {"kind": "mlp"}}, "'ridge' is a head of its own kind; expected another name"),
    "unknown key": ({"ridge": {"alhpa": 1}}, r"\[heads.ridge\] has no key 'alhpa'; did you mean 'alpha'\?; expected some of kind, alpha"),
    "out of range": ({"mlp": {"dropout": 1.5}}, r"\[heads.mlp\] dropout is 1.5; expected a number at least 0, below 1"),
    "no whole number": ({"mlp": {"width": 2.5}}, "width is 2.5; expected a whole number at least 1"),
    "text": ({"ridge": {"alpha": "much"}}, "alpha is 'much'; expected a number above 0"),
    "text in a grid": ({"ridge": {"alpha": [1.0, "b"]}}, "alpha is 'b'; expected a number above 0"),
    "truth": ({"ridge": {"alpha": True}}, "alpha is True; expected a number above 0"),
    "an empty grid": ({"ridge": {"alpha": []}}, "alpha is an empty list; expected at least one candidate"),
    "a grid of another": ({"mlp": {"width": [1, 2]}}, "width is a list; expected one value: inside the folds epochs is chosen"),
    "a power": ({"ridge": {"power": 1.0}}, "power is 1.0; expected 0.5: all heads of a run share one copy of the rows"),
    "a temperature": ({"ridge": {"temperature": 1.0}}, "temperature is chosen inside the folds"),
    "half a schedule": ({"mlp": {"schedule_epochs": 30}}, r"expected both, such as epochs = \[26, 30\]"),
    "no table": ({"ridge": 3}, r"\[heads\] ridge is 3; expected a table, such as \[heads.ridge\]"),
    "the ensemble's name": ({"Ensemble": {"kind": "mlp"}}, "has the name of 'ensemble', or differs by capitals alone"),
    "a name but for capitals": ({"MLP": {"kind": "mlp"}}, "has the name of 'mlp', or differs by capitals alone"),
    "a name of another folder": ({"../x": {"kind": "mlp"}}, "is no name of a head, which is also a file's"),
    "a name with a comma": ({"a,b": {"kind": "mlp"}}, "expected up to 64 letters, digits, - and _"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_table_is_refused_with_its_section_and_what_is_expected(case):
    table, match = WRONG[case]
    with pytest.raises(OptionError, match=match):
        Settings(features=Path("f.h5"), labels=None, own_heads=table)


def test_the_shared_power_may_be_said():
    assert own_kinds({"ridge": {"power": 0.5}})["ridge"].grid == HEADS["ridge"].grid


def test_own_heads_are_fitted_beside_the_default_ones_unless_others_are_named():
    own = {"wide": {"kind": "mlp", "width": 64}, "ridge": {"alpha": [3.0]}}
    settings = {"features": Path("f.h5"), "labels": None, "own_heads": own}
    assert tuple(Settings(**settings).kinds) == (*DEFAULT_HEADS, "wide")
    assert Settings(**settings).kinds["ridge"].grid == (3.0,)
    assert tuple(Settings(**settings, heads=("knn", "wide")).kinds) == ("knn", "wide")
    with pytest.raises(OptionError, match=r"unknown head 'wode'; .*, knn, wide; did you mean 'wide'\?"):
        Settings(**settings, heads=("wode",))


def test_a_run_of_own_heads_says_what_they_are_and_submits(project):
    run = fit_heads(
        FitSettings(
            features=project.train,
            labels=project.csv,
            heads=("narrow", "knn"),
            own_heads={"narrow": {"kind": "mlp", "width": 8, "epochs": [2, 4]}, "knn": {"k": 5}},
            folds=3,
            out=project.folder / "runs" / "own",
        )
    )
    description = read_run(run.folder)
    assert description["heads"] == ["narrow", "knn"]
    assert description["settings"]["own_heads"]["narrow"] == {"kind": "mlp", "width": 8, "epochs": [2, 4]}
    assert [len(each["candidates"]) for each in description["chosen_in_folds"]["narrow"]] == [4, 4, 4]
    narrow, near = load_heads(run.folder, description)
    assert (narrow.name, type(narrow.head).__name__, narrow.head.width) == ("narrow", "MLPHead", 8)
    assert near.head.k == 5
    out = project.folder / "own.csv"
    submit(SubmitSettings(runs=(run.folder,), features=project.test, sample=project.sample, out=out))
    assert len(out.read_text().splitlines()) == 13


@pytest.fixture
def inside(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    return project.folder


FIT = '[fit-heads]\nlabels = "train.csv"\nfolds = 2\n\n'


def test_the_section_of_the_config_file_adds_heads_and_grids(inside, run_cli):
    Path("some.toml").write_text(
        FIT + '[heads.tiny]\nkind = "mlp"\nwidth = 4\nepochs = 2\n\n[heads.ridge]\nalpha = [1, 10.0]\n'
    )
    code, out, err = run_cli(
        "fit-heads", "--config", "some.toml", "--out", "cli-run", "--heads", "tiny,ridge", "--json"
    )
    assert code == 0, err
    assert set(json.loads(out)["heads"]) == {"tiny", "ridge", "ensemble"}
    chosen = read_run(Path("cli-run"))["chosen"]
    assert [candidate for candidate, _ in chosen["ridge"]["candidates"]] == [10.0, 1]
    assert chosen["tiny"]["settings"]["width"] == 4


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ("[heads.wide]\nkind = 'mlp'\nwidht = 3\n", "bad.toml: [heads.wide] has no key 'widht'; did you mean 'width'?"),
        ("[heads]\nridge = 3\n", "bad.toml: [heads] ridge is 3; expected a table"),
        ("[head.ridge]\nalpha = 3\n", "bad.toml: no section [head]"),
    ],
)
def test_a_wrong_section_exits_with_2_and_names_the_file(inside, run_cli, section, complaint):
    Path("bad.toml").write_text(FIT + section)
    code, _, err = run_cli("fit-heads", "--config", "bad.toml", "--out", "never")
    assert code == 2
    assert complaint in err
    assert not Path("never").exists()


def test_other_commands_know_the_section_too(inside, run_cli):
    Path("some.toml").write_text("[heads.ridge]\nalpha = 3\n")
    code, _, err = run_cli("runs", "--config", "some.toml", "runs")
    assert code == 0, err
