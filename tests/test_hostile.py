"""Files that mean harm are refused: each kind, with exit code 3, quickly, in little memory, and without a neighbour's byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cache_data import QUICK
from hostile import KINDS, MEMBERS, SECRET, _file, seal

from features_cache.console import print_lines
from features_cache.reader import FeatureCache

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
Answers = dict[str, tuple[str, int, str, float, float]]
HOUSE = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Open all of them in one process, which has done nothing else: its peak is the peak of each."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "files").mkdir()
    for number, make in enumerate(KINDS.values()):
        place = folder / str(number)
        place.mkdir()
        make(place / "x.h5")
        (place / "x.h5").rename(folder / "files" / f"{number:02d}.h5")
    environment = os.environ | {"PYTHONPATH": f"{HOUSE}{os.pathsep}{HOUSE / 'tests'}"}
    done = subprocess.run(
        [sys.executable, HOUSE / "tests" / "hostile.py", folder / "files"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {kind: tuple(answer[1:]) for kind, answer in zip(KINDS, found, strict=True)}


def test_the_file_that_the_kinds_are_made_from_is_good(tmp_path: Path) -> None:
    _file(tmp_path / "good.h5").close()
    seal(tmp_path / "good.h5")
    with FeatureCache(tmp_path / "good.h5") as cache:
        assert cache.load().shape == MEMBERS["features"]().shape


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_refused_with_exit_code_3_in_a_second_and_256_mb(answers: Answers, kind: str) -> None:
    name, exit_code, message, seconds, peak_mb = answers[kind]
    assert (name, exit_code) == ("ForeignCache", 3), message
    assert message.count("\n") == 0
    assert SECRET.decode() not in message
    assert seconds < 1
    assert peak_mb < 256


@pytest.mark.parametrize("command", ["inspect", "verify", "export"])
def test_a_pipe_is_refused_and_not_waited_for(
    tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]], command: str
) -> None:
    os.mkfifo(tmp_path / "x.h5")
    more = ("--to", "npz") if command == "export" else ()
    code, _, err = run_cli(command, tmp_path / "x.h5", *more)
    assert code == 3
    assert "not a regular file" in err


def test_no_pipe_beside_a_cache_is_waited_for(project: Path, run_cli: Callable[..., tuple[int, str, str]]) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    Path("features/train.json").unlink()
    os.mkfifo("features/train.json")
    Path("features/train.parts").mkdir()
    os.mkfifo("features/train.parts/plan.jsonl")
    assert run_cli("featurize", *QUICK, "--augment", "1")[0] == 0
    with FeatureCache(Path("features/train.h5")) as cache:
        assert cache.n_views == 2


def test_what_a_foreign_file_says_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines(["\x1b[31mid\x07", "ä\tb"])
    assert capsys.readouterr().out == "\\x1b[31mid\\x07\nä\tb\n"


def test_the_command_line_says_so_too(tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]) -> None:
    for kind in ("external link", "virtual features", "blocks nested without end"):
        KINDS[kind](tmp_path / "x.h5")
        for command in ("inspect", "verify"):
            code, _, err = run_cli(command, tmp_path / "x.h5")
            assert code == 3
            assert "refused" in err
