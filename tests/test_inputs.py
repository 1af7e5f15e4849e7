"""Every kind of bad input, a row each: what is wrong, what is typed, the exit code and the words that it gets."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cache_data import QUICK, picture, quarantine
from inputs_data import (
    CACHE,
    FIRST,
    LABELS,
    SAMPLE,
    TEST,
    TRAIN,
    UNDO,
    Spoil,
    all_of,
    append,
    change,
    channel_files,
    copy,
    cut,
    drawn,
    evil_weights,
    fill_disk,
    flip,
    floats,
    foreign,
    hostile,
    huge_png,
    limit_file_size,
    link,
    nothing,
    other_weights,
    pipe,
    remove,
    rename,
    save,
    stopped_by,
    strange_names,
    turned,
    write,
)

import cli

Run = Callable[..., tuple[int, str, str]]
LOOK = ("featurize", *QUICK)
LONG = (*LOOK, "--augment", "40", "--batch-size", "1")
FIT = ("fit-heads", "--heads", "ridge", "--folds", "2", "--out", "runs/again")
SUBMIT = ("submit",)
WEIGHTS = ("featurize", "--backbone", "squeezenet1_1", "--size", "64", "--device", "cpu", "--weights")
CHANNELS = ("--pattern", "{id}_{channel}.png", "--planes", "dna,er", "--channels", "dna+er+none")

# stage, what is wrong, how it is made, what is typed, exit code, words in what is said. A number is a kind of input, of which there may be several rows.
TABLE: list[tuple[str, str, Spoil, tuple[str, ...], int, str]] = [
    ("images", "1 empty file", write(FIRST, b""), LOOK, 4, "not an image: not an image (empty file"),
    ("images", "1 text named png", write(FIRST, "see the other disk\n"), LOOK, 4, "not an image: not an image (looks like text"),
    ("images", "1 HTML named png", write(FIRST, "<!DOCTYPE html><html>404</html>"), LOOK, 4, "not an image: not an image (looks like HTML"),
    ("images", "2 truncated PNG", cut(FIRST), LOOK, 4, "truncated or damaged: "),
    ("images", "2 truncated JPEG", all_of(save(drawn(), FIRST, format="JPEG"), cut(FIRST, 0.9)), LOOK, 4, "truncated or damaged: "),
    ("features", "3 image changed since the cache began", save(drawn()), LOOK, 2, "1 images are not those that it was made from ('train0')"),
    ("images", "4 decompression bomb", write(FIRST, huge_png()), LOOK, 4, "60000 x 60000 pixels; at most 100000000"),
    ("images", "4 over --max-pixels", nothing, (*LOOK, "--max-pixels", "1000", "--max-bad", "1"), 4, "40 x 40 pixels; at most 1000"),
    ("images", "5 one pixel, and a line", all_of(save(drawn().resize((1, 1))), save(drawn().resize((5000, 1)), TRAIN / "train1.png")), LOOK, 0, "2 images: smaller than 8 px or longer than 8:1"),
    ("images", "6 CMYK", save(drawn("CMYK"), FIRST, format="JPEG"), LOOK, 0, "1 images: CMYK"),
    ("images", "6 palette", save(drawn("P")), LOOK, 0, "1 images: palette"),
    ("images", "6 alpha", save(drawn("RGBA")), LOOK, 0, "1 images: alpha"),
    ("images", "6 one bit", save(drawn("1")), LOOK, 0, "1 images: 1-bit"),
    ("images", "6 grey", save(drawn("L")), LOOK, 0, "1 images: grey turned to RGB"),
    ("images", "7 NaN pixel", save(floats(np.nan), format="TIFF"), LOOK, 4, "1 NaN or infinite pixels"),
    ("images", "7 infinite pixel", save(floats(np.inf), format="TIFF"), LOOK, 4, "1 NaN or infinite pixels"),
    ("images", "7 floats above 1", save(floats(3.0), format="TIFF"), LOOK, 4, "to 3; expected 0 to 1 (--scale)"),
    ("images", "7 floats and --scale", save(floats(3.0), format="TIFF"), (*LOOK, "--scale", "image:0:100"), 0, "1 images: float pixels"),
    ("images", "7 floats of 64 bits", lambda: tifffile.imwrite(FIRST, np.full((20, 20), 0.5)), LOOK, 0, "1 images: float pixels"),
    ("images", "7 a camera of 12 bits", save(np.full((20, 20), 4095, np.uint16)), LOOK, 0, "none of them above 4095: nearly black, unless --scale 4095"),
    ("images", "7 statistics of a few", nothing, (*LOOK, "--normalise", "dataset", "--limit", "3"), 2, "expected those of all training images"),
    ("images", "8 animated", save(drawn(), FIRST, format="GIF", save_all=True, append_images=[drawn("L")]), LOOK, 4, "2 frames or pages; expected one. --frame N"),
    ("images", "8 animated and --frame", save(drawn(), FIRST, format="TIFF", save_all=True, append_images=[drawn()]), (*LOOK, "--frame", "0"), 0, "6 images"),
    ("images", "9 EXIF orientation", save(drawn(), FIRST, format="JPEG", exif=turned()), LOOK, 0, "1 images: turned by its EXIF orientation"),
    ("images", "10 no image at all", lambda: [path.write_bytes(b"") for path in TRAIN.iterdir()] and None, ("featurize", "--backbone", "resnet18", *QUICK[2:]), 2, "none of 6 images can be read; expected one at least"),
    ("images", "10 PDF", write(FIRST, b"%PDF-1.7\n" + bytes(60)), LOOK, 4, "not an image: not an image (looks like PDF"),
    ("images", "10 EPS", write(FIRST, b"%!PS-Adobe-3.0 EPSF-3.0\n" + bytes(60)), LOOK, 4, "not an image: not an image (looks like PostScript"),
    ("images", "10 PSD", write(FIRST, b"8BPS\x00\x01" + bytes(60)), LOOK, 4, "not an image: not an image (looks like PSD"),
    ("images", "10 FITS", write(FIRST, b"SIMPLE  =                    T" + bytes(60)), LOOK, 4, "not an image: not an image (looks like FITS"),
    ("images", "11 extension and content disagree", save(drawn(), FIRST, format="BMP"), LOOK, 0, "1 images: extension says .png, content is BMP"),
    ("images", "12 unreadable", all_of(remove(FIRST), link(FIRST, "/proc/self/mem")), (*LOOK, "--follow-symlinks"), 4, "unreadable: Input/output error (errno 5)"),
    ("images", "13 link out of the folder", link(TRAIN / "link.png", "/etc/hostname"), LOOK, 3, "a link out of data/train; refused"),
    ("images", "13 link in a circle", link(TRAIN / "link.png", "link.png"), (*LOOK, "--follow-symlinks"), 3, "leads nowhere or in a circle; refused"),
    ("images", "13 link to a folder above", link(TRAIN / "below", "../../data/train"), (*LOOK, "--follow-symlinks"), 3, "a link to a folder that it lies in; refused"),
    ("images", "13 link out, and asked for", all_of(copy(FIRST, Path("elsewhere.png")), remove(FIRST), link(FIRST, "../../elsewhere.png")), (*LOOK, "--follow-symlinks"), 0, "6 images"),
    ("images", "14 pipe", pipe(TRAIN / "pipe.png"), LOOK, 3, "not a regular file"),
    ("images", "15 strange file names", strange_names, LOOK, 0, "11 images"),
    ("images", "16 two ids of one file", append(LABELS, "train0.png,a\n"), LOOK, 2, "two ids in data/train.csv name the file 'train0.png'"),
    ("images", "16 the same bytes twice", copy(FIRST, TRAIN / "train5.png", TEST / "test0.png"), LOOK, 0, "1 groups of images are the same bytes, 1 of them in both train and test"),
    ("images", "17 empty folder", lambda: Path("empty").mkdir(), (*LOOK, "--train-images", "empty"), 2, "empty: no images; looked for files that end in .png .jpg"),
    ("images", "18 no labels", remove(LABELS), (*LOOK, "--labels", "data/train.csv"), 2, "--labels data/train.csv: no such file"),
    ("images", "18 empty labels", write(LABELS, ""), LOOK, 2, "data/train.csv: empty"),
    ("images", "18 labels of a header alone", write(LABELS, "id,label\n"), LOOK, 2, "data/train.csv: only a header (id, label)"),
    ("images", "19 image and label do not meet", rename(FIRST, "other.png"), LOOK, 2, "1 of 6 ids in data/train.csv have no image ('train0')"),
    ("images", "19 they do not, and may", rename(FIRST, "other.png"), (*LOOK, "--ignore-unlabelled"), 0, "5 images"),
    ("features", "20 a row twice, with its label", append(LABELS, "train0,a\n"), FIT, 0, "1 ids occur more than once with the same label ('train0')"),
    ("features", "20 a row twice, with another label", append(LABELS, "train0,b\n"), FIT, 2, "'train0' has the labels 'a' on line 2, 'b' on line 8"),
    ("features", "21 wrong column", change(LABELS, "id,label", "id,lable"), (*FIT, "--label-column", "label"), 2, "did you mean 'lable'"),
    ("images", "21 semicolons", change(LABELS, ",", ";"), LOOK, 2, "semicolons"),
    ("images", "21 tabs", change(LABELS, ",", "\t"), LOOK, 2, "tabs"),
    ("images", "21 byte-order mark", change(LABELS, "id,label", "\ufeffid,label"), LOOK, 0, "6 images"),
    ("images", "22 ragged row", append(LABELS, "train5\n"), LOOK, 2, "data/train.csv:8"),
    ("images", "22 unclosed quote", append(LABELS, '"train5,a\n'), LOOK, 2, "data/train.csv:8"),
    ("images", "22 NUL", append(LABELS, "tr\x00ain5,a\n"), LOOK, 2, "data/train.csv:8"),
    ("images", "22 not UTF-8", write(LABELS, b"id,label\ntrain0,\xff\n"), LOOK, 2, "data/train.csv:2"),
    ("features", "23 blank label", change(LABELS, "train0,a", "train0,"), FIT, 2, "--drop-missing"),
    ("features", "23 NaN label", change(LABELS, "train0,a", "train0,NaN"), FIT, 2, "--drop-missing"),
    ("features", "23 ? label", change(LABELS, "train0,a", "train0,?"), FIT, 2, "--drop-missing"),
    ("features", "23 blank label that may be", change(LABELS, "train0,a", "train0,"), (*FIT, "--drop-missing"), 0, "1 of 6 labels are blank, NaN or '?' (lines 2): left out"),
    ("features", "24 one class", change(LABELS, ",b", ",a"), FIT, 2, "in 1 class ('a'); expected at least 2"),
    ("features", "24 a class that would vanish", change(LABELS, "train0,a", "train0,c"), FIT, 2, "leave them out (--exclude-class c)"),
    ("images", "25 ids 007 and 1e5", all_of(rename(FIRST, "007.png"), change(LABELS, "train0", "007"), rename(TRAIN / "train1.png", "1e5.png"), change(LABELS, "train1", "1e5")), LOOK, 0, "6 images"),
    ("images", "26 path with ..", write(LABELS, "id,path\ntrain0,../test/test0.png\n"), LOOK, 3, "leaves the images' folder"),
    ("images", "26 path with ~", write(LABELS, "id,path\ntrain0,~/x.png\n"), LOOK, 3, "leaves the images' folder"),
    ("images", "26 absolute path", write(LABELS, "id,path\ntrain0,/etc/hostname\n"), LOOK, 3, "leaves the images' folder"),
    ("images", "27 channel file missing", channel_files(remove(TRAIN / "train0_er.png")), (*LOOK, *CHANNELS), 4, "channel er has no file"),
    ("images", "27 channel file of another size", channel_files(save(picture(1, 31).convert("L"), TRAIN / "train0_er.png")), (*LOOK, *CHANNELS), 4, "channel er is 31 x 31; channel dna is 30 x 30"),
    ("features", "28 cache truncated", cut(CACHE), FIT, 2, "It was cut or added to. Restore it"),
    ("features", "28 cache flipped", flip(CACHE), FIT, 2, "cli verify"),
    ("run", "29 HDF5 of others", foreign, SUBMIT, 3, "not a permafeat file"),
    ("run", "29 link out of a cache", hostile("external link"), SUBMIT, 3, "features/test.h5: features"),
    ("run", "29 shape bomb in a cache", hostile("shape bomb in chunks"), SUBMIT, 3, "bytes of features from 512 on cannot be"),
    ("run", "30 block of another recipe", lambda: cli_again("--size", "32", "--overwrite"), SUBMIT, 2, "size_px: 64 in the heads, 32 in the cache"),
    ("images", "31 a file where the caches go", write("features", "notes"), LOOK, 2, "features is a file; expected a folder"),
    ("images", "31 too small a disk", fill_disk, LOOK, 2, "GB free"),
    ("images", "31 quota reached on the way", limit_file_size, (*LONG, "--batch-size", "6"), 75, "free some space and type the same command again"),
    ("images", "32 weights of another network", other_weights, (*WEIGHTS, "squeezenet1_1=squeezenet1_1.pth"), 2, "the weights are not those of squeezenet1_1"),
    ("images", "32 weights cut", all_of(other_weights, cut(Path("squeezenet1_1.pth"))), (*WEIGHTS, "squeezenet1_1=squeezenet1_1.pth"), 2, "cannot be read as weights"),
    ("images", "32 weights of another hash", all_of(other_weights, rename(Path("squeezenet1_1.pth"), "squeezenet1_1-b8a52dc0.pth")), (*WEIGHTS, "squeezenet1_1=squeezenet1_1-b8a52dc0.pth"), 2, "do not have the hash in its name"),
    ("images", "32 weights with code", evil_weights, (*WEIGHTS, "."), 3, "holds code beside tensors"),
    ("run", "33 head edited", flip(Path("runs/001/heads/ridge.safetensors"), 0.9), SUBMIT, 2, "ridge.safetensors: edited since it was written"),
    ("run", "33 head file edited", change(Path("runs/001/heads/ridge.json"), '"name": ', '"nome": '), SUBMIT, 2, "ridge.json: edited since it was written"),
    ("run", "33 run of a newer format", change(Path("runs/001/run.json"), '"version": ', '"version": 9'), SUBMIT, 2, "this version of permafeat reads"),
    ("run", "34 id missing in the features", append(SAMPLE, "test9,a\n"), SUBMIT, 2, "1 of 4 ids have no features"),
    ("run", "34 id twice", append(SAMPLE, "test0,a\n"), SUBMIT, 2, "1 ids occur more than once ('test0'; lines 2, 5)"),
    ("run", "35 id like a formula, as it is", change(SAMPLE, "id,label", "=id,label"), SUBMIT, 0, "\n=id,label"),
    ("run", "35 and for a spreadsheet", change(SAMPLE, "id,label", "=id,label"), (*SUBMIT, "--excel-safe"), 0, "\n'=id,label"),
    ("images", "36 archive", write("images.zip", b"PK"), (*LOOK, "--train-images", "images.zip"), 2, "unpack it first"),
    ("images", "37 unknown flag", nothing, (*LOOK, "--augmnt", "6"), 2, "--augment"),
    ("images", "37 unknown backbone", nothing, ("featurize", "--backbone", "resnet81", "--weights", "random"), 2, "did you mean"),
    ("features", "37 unknown head", nothing, ("fit-heads", "--heads", "rigde"), 2, "did you mean 'ridge'"),
    ("images", "37 negative batch", nothing, (*LOOK, "--batch-size", "-1"), 2, "--batch-size is -1; expected 1 or more"),
    ("images", "38 output of others", write(CACHE, "my thesis"), LOOK, 2, "--overwrite"),
    ("run", "38 submission of others", write("submission.csv", "my thesis"), SUBMIT, 2, "--overwrite"),
    ("run", "38 our own, again", nothing, SUBMIT, 0, "3 rows"),
    ("images", "39 no GPU", nothing, ("featurize", *QUICK[:-1], "cuda"), 2, "--device cuda"),
    ("images", "40 SIGINT", stopped_by(signal.SIGINT), LONG, 75, "SIGINT"),
    ("images", "40 SIGTERM", stopped_by(signal.SIGTERM), LONG, 75, "SIGTERM"),
    ("images", "40 SIGHUP", stopped_by(signal.SIGHUP), LONG, 75, "SIGHUP"),
]  # fmt: skip


def cli_again(*words: str) -> None:
    """Type `cli featurize` in a process of its own."""
    command = [sys.executable, "-m", "cli", *LOOK, *words]
    subprocess.run(
        command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parent)}
    )


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A project of images; one that has features, too; and one with a run of heads."""
    places = {name: tmp_path_factory.mktemp("stages") / name for name in ("images", "features", "run")}
    here = Path.cwd()
    for split, count, first in ((TRAIN, 6, 0), (TEST, 3, 100)):
        folder = places["images"] / split
        folder.mkdir(parents=True)
        for index in range(count):
            picture(index + first).save(folder / f"{split.name}{index}.png")
    labels = [f"train{index},{'ab'[index % 2]}" for index in range(6)]
    (places["images"] / LABELS).write_text("\n".join(["id,label", *labels]) + "\n")
    (places["images"] / SAMPLE).write_text("id,label\ntest0,a\ntest1,a\ntest2,a\n")
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parent)}
    for before, after, words in (("images", "features", LOOK), ("features", "run", FIT[:-2])):
        shutil.copytree(places[before], places[after])
        command = [sys.executable, "-m", "cli", *words]
        subprocess.run(command, check=True, cwd=places[after], env=environment, capture_output=True)
    yield places
    os.chdir(here)


@pytest.mark.parametrize(("stage", "kind", "spoil", "words", "code", "told"), TABLE, ids=[row[1] for row in TABLE])
def test_it_gets_its_exit_code_and_says_what_is_wrong(
    stages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Run,
    stage: str, kind: str, spoil: Spoil, words: tuple[str, ...], code: int, told: str,
) -> None:  # fmt: skip
    shutil.copytree(stages[stage], tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    try:
        spoil()
        found, out, err = run_cli(*words)
    finally:
        while UNDO:
            UNDO.pop()()
    said = f"{out}\n{err}"
    if Path("features/train.quarantine.csv").is_file():
        said += "".join(f"\n{status}: {reason}" for status, reason in quarantine().values())
    if Path("submission.csv").is_file():
        said += "\n" + Path("submission.csv").read_text()
    assert (found, told in said) == (code, True), f"{found}: {said}"
    assert "Traceback" not in said
    assert not Path("evil-was-here").exists()


def test_no_kind_of_bad_input_has_lost_its_rows() -> None:
    assert sorted({int(kind.split()[0]) for _, kind, *_ in TABLE}) == list(range(1, 41))
