"""What can run a network on a processor: eager torch, folded and channels last, bfloat16, compiled, OpenVINO; a row each.

Run as ``python -m bench.runtimes``. Networks alone, on the same tensors again and again; each network in a process of its own. Weights are
random with statistics of their own; the cosines are to eager float32, of the worst view.
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from featurize.backbones.build import Backbone, build_backbone
from featurize.backbones.openvino_runtime import OpenVinoNetwork
from featurize.backbones.precision import fold_batch_norm, lowered
from featurize.settings import DEFAULT_BACKBONES

Network = Callable[[Tensor], Tensor]


def kinds(backbone: Backbone, n_views: int, *, compiled: bool) -> Iterator[tuple[str, Callable[[], Network]]]:
    """Yield names of ways to run a network, each with what makes it."""

    def folded() -> torch.nn.Module:
        return fold_batch_norm(copy.deepcopy(backbone))

    def last(network: torch.nn.Module) -> Network:
        network.to(memory_format=torch.channels_last)
        return lambda images: network(images.contiguous(memory_format=torch.channels_last))

    def frozen(network: torch.nn.Module) -> Network:
        import torch._inductor.config as inductor

        inductor.freezing = True
        return last(torch.compile(network))  # type: ignore[arg-type]

    yield "eager float32", lambda: backbone
    yield "torch float32: folded, channels last", lambda: last(folded())
    yield "torch bfloat16, but for depthwise layers", lambda: last(lowered(folded(), torch.bfloat16))
    if compiled:
        yield "torch.compile with freezing, float32", lambda: frozen(folded())
        yield "torch.compile with freezing, bfloat16", lambda: frozen(lowered(folded(), torch.bfloat16))
    n_threads = torch.get_num_threads()
    yield "OpenVINO float32", lambda: OpenVinoNetwork(backbone, 224, n_views, "float32", n_threads)
    yield (
        "OpenVINO bfloat16, depthwise networks float32",
        lambda: OpenVinoNetwork(backbone, 224, n_views, "bfloat16", n_threads),
    )


def rate(network: Network, images: Tensor, seconds: float) -> float:
    """Time passes; return views a second of the quicker half, as a busy machine slows some."""
    took: list[float] = []
    until = time.perf_counter() + seconds
    network(images)
    while len(took) < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        network(images)
        took.append(time.perf_counter() - began)
    steady = sorted(took)[: max(1, len(took) // 2)]
    return len(images) * len(steady) / sum(steady)


def table(name: str, n_views: int, seconds: float, *, compiled: bool) -> None:
    """Print the rows of one network."""
    torch.manual_seed(0)
    backbone = build_backbone(name, 224, None)
    images = torch.rand(n_views, 3, 224, 224)
    for layer in backbone.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.train().momentum = 1.0
    with torch.inference_mode():
        backbone(images)
        expected = backbone.eval()(images)
        for kind, make in kinds(backbone, n_views, compiled=compiled):
            began = time.perf_counter()
            network = make()
            found = network(images)
            start_s = time.perf_counter() - began
            cosine = float(torch.nn.functional.cosine_similarity(found, expected).min())
            speed = rate(network, images, seconds)
            print(f"{name:<17}{kind:<47}{speed:>8.1f} views/s{start_s:>7.1f} s to begin  {cosine:.5f}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", nargs="+", default=list(DEFAULT_BACKBONES))
    parser.add_argument("--views", type=int, default=16, help="in a batch")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--compile", action="store_true", help="torch.compile as well (minutes)")
    options = parser.parse_args()
    if len(options.networks) == 1:
        table(options.networks[0], options.views, options.seconds, compiled=options.compile)
        return
    for name in options.networks:
        words = [sys.executable, "-m", "bench.runtimes", "--networks", name, "--views", str(options.views)]
        subprocess.run(
            [*words, "--seconds", str(options.seconds), *(["--compile"] if options.compile else [])], check=True
        )


if __name__ == "__main__":
    main()
