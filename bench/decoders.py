"""What decodes an image soonest, in one thread, in two, and in two processes: images a second.

Run as ``python -m bench.decoders``. Files are drawn here: smooth cells with the noise of a camera. Decoders that are not installed, or do not
know a format, are left out. Processes send their pixels back, as a run would need them.
"""

from __future__ import annotations

import argparse
import importlib
import io
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from features_cache.errors import OptionError
from features_cache.extras import load_extra
from featurize.images.decode import decode

Pixels = NDArray[Any]


def picture(side_px: int, n_channels: int, most: int) -> Pixels:
    """Draw blobs on a dark ground, in the camera's noise."""
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[:side_px, :side_px] / side_px
    blobs = np.zeros((side_px, side_px, n_channels))
    for _ in range(40):
        y, x, radius = *rng.random(2), rng.uniform(0.02, 0.06)
        blobs += np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / radius**2)[..., None] * rng.random(n_channels)
    noisy = (0.05 + 0.8 * blobs / blobs.max()) * most + rng.normal(0, 0.01 * most, blobs.shape)
    pixels: Pixels = noisy.clip(0, most).astype(np.uint8 if most < 256 else np.uint16)
    return pixels


def files() -> dict[str, bytes]:
    """Draw one file of each kind."""
    found = {}
    for side_px in (64, 1024):
        held = io.BytesIO()
        Image.fromarray(picture(side_px, 3, 255)).save(held, "PNG")
        found[f"PNG {side_px}"] = held.getvalue()
    held = io.BytesIO()
    Image.fromarray(picture(2048, 3, 255)).save(held, "JPEG", quality=90)
    found["JPEG 2048"] = held.getvalue()
    for name, how in (
        ("TIFF 2048, 16 bits", {}),
        ("TIFF 2048, 16 bits, deflated", {"compression": "tiff_adobe_deflate"}),
    ):
        held = io.BytesIO()
        Image.fromarray(picture(2048, 1, 65535)[..., 0]).save(held, "TIFF", **how)
        found[name] = held.getvalue()
    return found


def by_rules(raw: bytes) -> Pixels:
    """Decode as a run does: rules, limits and checks included."""
    return decode(raw).pixels


def by_pillow(raw: bytes) -> Pixels:
    """Decode by Pillow alone."""
    return np.asarray(Image.open(io.BytesIO(raw)))


def by_torchvision(raw: bytes) -> Pixels:
    """Decode by torchvision."""
    from torchvision.io import decode_image

    pixels: Pixels = decode_image(torch.frombuffer(bytearray(raw), dtype=torch.uint8)).numpy()
    return pixels


def by_torchcodec(raw: bytes) -> Pixels:
    """Decode by torchcodec, if somebody installed it."""
    decoders = importlib.import_module("torchcodec.decoders")
    pixels: Pixels = decoders.decode_image(torch.frombuffer(bytearray(raw), dtype=torch.uint8)).numpy()
    return pixels


def by_imagecodecs(raw: bytes) -> Pixels:
    """Decode by imagecodecs, or by tifffile with it."""
    if raw[:2] in {b"II", b"MM"}:
        return load_extra("tifffile", "tiff").imread(io.BytesIO(raw))  # type: ignore[no-any-return]
    return load_extra("imagecodecs", "tiff").imread(raw)  # type: ignore[no-any-return]


DECODERS: dict[str, Callable[[bytes], Pixels]] = {
    "permafeat": by_rules,
    "Pillow": by_pillow,
    "torchvision": by_torchvision,
    "torchcodec": by_torchcodec,
    "imagecodecs": by_imagecodecs,
}


def rate(decoder: Callable[[bytes], Pixels], raw: bytes, pool: Executor, seconds: float) -> float:
    """Return images a second, of as many as a pilot says fit into the time."""
    began = time.perf_counter()
    for _ in range(3):
        decoder(raw)
    n_images = max(8, int(seconds * 3 / (time.perf_counter() - began)))
    list(pool.map(decoder, [raw] * 4))  # processes start
    began = time.perf_counter()
    for _ in pool.map(decoder, [raw] * n_images, chunksize=8):
        pass
    return n_images / (time.perf_counter() - began)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=2)
    options = parser.parse_args()
    pools: dict[str, Callable[[], Executor]] = {
        "1 thread": lambda: ThreadPoolExecutor(1),
        "2 threads": lambda: ThreadPoolExecutor(2),
        "2 processes": lambda: ProcessPoolExecutor(2),
    }
    print(f"{'':<32}{'':<14}" + "".join(f"{name:>14}" for name in pools))
    for kind, raw in files().items():
        expected = by_pillow(raw)
        for name, decoder in DECODERS.items():
            try:
                found = decoder(raw)
            except (ImportError, OptionError, RuntimeError, ValueError) as error:
                print(f"{kind:<32}{name:<14}  {str(error).splitlines()[0][:60]}")
                continue
            same = "" if np.array_equal(np.squeeze(_last(found)), expected) else "  other pixels"
            rates = []
            for make in pools.values():
                with make() as pool:
                    rates.append(rate(decoder, raw, pool, options.seconds))
            print(f"{kind:<32}{name:<14}" + "".join(f"{each:>14.1f}" for each in rates) + same, flush=True)


def _last(pixels: Pixels) -> Pixels:
    """Put channels last: torchvision gives them first."""
    return pixels.transpose(1, 2, 0) if pixels.ndim == 3 and pixels.shape[0] <= 4 else pixels


if __name__ == "__main__":
    main()
