"""How good projects are spoilt: each function makes one thing wrong in the project folder that the process is in."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from cache_data import picture
from hostile import KINDS
from PIL import Image

Spoil = Callable[[], None]
TRAIN, TEST = Path("data/train"), Path("data/test")
FIRST = TRAIN / "train0.png"
LABELS, SAMPLE = Path("data/train.csv"), Path("data/sample_submission.csv")
CACHE = Path("features/train.h5")


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def huge_png() -> bytes:
    """Declare 60,000 x 60,000 pixels in a hundred bytes."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def nothing() -> None:
    """Leave all as it is: the command is what is wrong."""


def all_of(*spoils: Spoil) -> Spoil:
    def spoil() -> None:
        for each in spoils:
            each()

    return spoil


def write(path: Path | str, content: bytes | str) -> Spoil:
    def spoil() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def append(path: Path, text: str) -> Spoil:
    return lambda: path.write_text(path.read_text() + text)


def change(path: Path, old: str, new: str) -> Spoil:
    """Put one text for another that is there."""

    def spoil() -> None:
        text = path.read_bytes().decode()
        assert old in text
        path.write_bytes(text.replace(old, new).encode())

    return spoil


def cut(path: Path, share: float = 0.5) -> Spoil:
    return lambda: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)]) and None


def flip(path: Path, share: float = 0.5) -> Spoil:
    """Turn a byte over."""

    def spoil() -> None:
        raw = bytearray(path.read_bytes())
        raw[int(share * len(raw))] ^= 0xFF
        path.write_bytes(raw)

    return spoil


def remove(path: Path) -> Spoil:
    return lambda: shutil.rmtree(path) if path.is_dir() else path.unlink()


def rename(path: Path, to: str) -> Spoil:
    return lambda: path.rename(path.with_name(to)) and None


def link(path: Path, to: str) -> Spoil:
    return lambda: path.symlink_to(to)


def pipe(path: Path) -> Spoil:
    return lambda: os.mkfifo(path)


def copy(source: Path, *targets: Path) -> Spoil:
    return lambda: [shutil.copyfile(source, target) for target in targets] and None


def save(pixels: np.ndarray | Image.Image, path: Path = FIRST, **how: object) -> Spoil:
    """Put a picture in the place of another, by its own format and whatever the name says."""

    def spoil() -> None:
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        named = str(how.get("format", path.suffix.lstrip(".").upper()))
        rest = {name: value for name, value in how.items() if name != "format"}
        with path.open("w+b") as file:
            image.save(file, {"JPG": "JPEG", "TIF": "TIFF"}.get(named, named), **rest)  # type: ignore[arg-type]

    return spoil


def drawn(mode: str = "RGB") -> Image.Image:
    return picture(31).convert(mode)


def turned() -> Image.Exif:
    """Say that a picture lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def floats(value: float) -> np.ndarray:
    """Values of a camera in [0, 1], but for one."""
    pixels = np.random.default_rng(0).random((20, 20), dtype=np.float32)
    pixels[3, 3] = value
    return pixels


def channel_files(*spoils: Spoil) -> Spoil:
    """Put images of two channel files each in the place of the others."""

    def spoil() -> None:
        for place in (*TRAIN.iterdir(), *TEST.iterdir()):
            for number, name in enumerate(("dna", "er")):
                picture(number, 30).convert("L").save(place.with_name(f"{place.stem}_{name}.png"))
            place.unlink()
        all_of(*spoils)()

    return spoil


def strange_names() -> None:
    LABELS.unlink()
    for index, name in enumerate(("a\nb.png", "=1+1.png", "brackets [x] (y).png", "ü é.png")):
        picture(50 + index).save(TRAIN / name)
    with open(os.fsencode(TRAIN) + b"/not-\xff-utf8.png", "wb") as file:  # noqa: PTH123 - a name of bytes
        picture(9).save(file, "PNG")


def foreign() -> None:
    """Put another program's HDF5 file in the place of a cache."""
    with h5py.File("features/test.h5", "w") as file:
        file["features"] = np.zeros((3, 1, 512), np.float16)


def hostile(kind: str) -> Spoil:
    """Put a file in the place of a cache that only looks like one of ours."""

    def spoil() -> None:
        Path("features/test.h5").unlink()
        KINDS[kind](Path("features/test.h5"))

    return spoil


class Evil:
    """Would run a command when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch evil-was-here",)


def evil_weights() -> None:
    import torch

    torch.save({"x": Evil()}, "squeezenet1_1.pth")


def other_weights() -> None:
    import torch
    from torchvision import models

    torch.save(models.mobilenet_v2(weights=None).state_dict(), "squeezenet1_1.pth")


UNDO: list[Callable[[], object]] = []
"""What has to be put back in this process after a row."""


def limit_file_size() -> None:
    """Let no file grow beyond 60,000 bytes: a quota, which the parts of a cache run into."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    UNDO.append(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))
    UNDO.append(lambda: signal.signal(signal.SIGXFSZ, before))
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))


def fill_disk() -> None:
    """Say that 1,000 bytes are free."""
    asked = shutil.disk_usage
    UNDO.append(lambda: setattr(shutil, "disk_usage", asked))
    shutil.disk_usage = lambda place: asked(place)._replace(free=1000)  # type: ignore[assignment]


def stopped_by(number: signal.Signals) -> Spoil:
    """Send a signal to this process as soon as something was committed."""

    def spoil() -> None:
        before = signal.signal(number, lambda *_: None)  # should the command be through before it comes
        UNDO.append(lambda: signal.signal(number, before))

        def send() -> None:
            until = time.monotonic() + 60
            while not list(Path("features").glob("*.parts/*.h5")) and time.monotonic() < until:
                time.sleep(0.005)
            os.kill(os.getpid(), number)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        UNDO.append(thread.join)

    return spoil
