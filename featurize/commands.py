"""Commands on images: each parses, calls one function, prints. Torch loads inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from features_cache.console import AsJson, Config, IgnoreUnlabelled, Overwrite, app, print_lines, say, split_list
from features_cache.progress import progress_bar
from featurize.settings import FeaturizeSettings

_DEFAULTS = FeaturizeSettings()
_QUARANTINED = 4


@app.command(epilog="Example: cli featurize --augment 6")
def featurize(
    ctx: typer.Context,
    train_images: Annotated[Path, typer.Option(help="Folder of training images.")] = _DEFAULTS.train_images,
    test_images: Annotated[Path, typer.Option(help="Folder of test images.")] = _DEFAULTS.test_images,
    labels: Annotated[Path | None, typer.Option(help="CSV whose ids say which training images there are.")] = None,
    sample: Annotated[Path | None, typer.Option(help="Sample submission: says which test images there are.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of ids in --labels.")] = None,
    cells: Annotated[Path | None, typer.Option(help="Folder of crops by `cli cells`, instead of images.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the caches.")] = _DEFAULTS.out,
    augment: Annotated[int, typer.Option(help="Augmented copies beside each image.")] = _DEFAULTS.augment,
    tta: Annotated[int | None, typer.Option(help="The same for test images. (default: as --augment)")] = None,
    backbone: Annotated[list[str], typer.Option(help="Networks; `cli backbones` lists them.")] = list(
        _DEFAULTS.backbones
    ),
    weights: Annotated[list[str], typer.Option(help="imagenet, random, a folder, or NAME=FILE.")] = list(
        _DEFAULTS.weights
    ),
    pattern: Annotated[str | None, typer.Option(help="Channel files: '{id}_{channel}.png'.")] = None,
    planes: Annotated[list[str], typer.Option(help="Names of an image's channels. (default: found)")] = [],
    channels: Annotated[
        list[str], typer.Option(help="Blends for the networks: a,b,c or a+b+c,c+d+a; each; adapt.")
    ] = [],
    frame: Annotated[int | None, typer.Option(help="Page of each file, from 0.")] = None,
    scale: Annotated[
        str, typer.Option(help="What becomes 0 and 1: dtype, 4095, 200:4095, image:1:99, channel:1:99.")
    ] = _DEFAULTS.scale,
    normalise: Annotated[str, typer.Option(help="Whose pixel statistics: imagenet or dataset.")] = _DEFAULTS.normalise,
    size: Annotated[int | None, typer.Option(help="Side of the networks' input, px. (default: as trained)")] = None,
    fit: Annotated[str, typer.Option(help="Into a square: stretch, crop or pad.")] = _DEFAULTS.fit,
    resize: Annotated[int | None, typer.Option(help="Side of that square, px. (default: as --size)")] = None,
    crops: Annotated[int, typer.Option(help="1 or 5 inputs cut from it, averaged.")] = _DEFAULTS.crops,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = _DEFAULTS.device,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = _DEFAULTS.precision,
    batch_size: Annotated[str, typer.Option(help="Images read and committed together.")] = "auto",
    workers: Annotated[str, typer.Option(help="Threads that read images.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of augmentation and random weights.")] = _DEFAULTS.seed,
    dtype: Annotated[str, typer.Option(help="Number type in the cache: float16 or float32.")] = _DEFAULTS.storage,
    max_bad: Annotated[float, typer.Option(help="Share of images that may be unusable.")] = _DEFAULTS.max_bad,
    max_pixels: Annotated[int, typer.Option(help="Largest image that is decoded.")] = _DEFAULTS.max_pixels,
    limit: Annotated[int | None, typer.Option(help="Only the first images of each split, by id.")] = None,
    ignore_unlabelled: IgnoreUnlabelled = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and its cost.")] = False,
    shard: Annotated[str | None, typer.Option(help="i/n: one of n processes that share the work.")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", allow_from_autoenv=False, help="Compute damaged and unusable rows anew.")
    ] = False,
    overwrite: Overwrite = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Pass every image and its augmented copies through frozen networks, and keep the vectors."""
    settings = FeaturizeSettings.from_options(
        train_images=train_images,
        test_images=test_images,
        labels=labels,
        sample=sample,
        id_column=id_column,
        cells=cells,
        out=out,
        augment=augment,
        tta=tta,
        backbones=split_list(backbone),
        weights=split_list(weights),
        pattern=pattern,
        planes=split_list(planes),
        channels=split_list(channels),
        frame=frame,
        scale=scale,
        normalise=normalise,
        size_px=size,
        fit=fit,
        resize_px=resize,
        crops=crops,
        device=device,
        precision=precision,
        unit_images=batch_size,
        n_workers=workers,
        seed=seed,
        storage=dtype,
        max_bad=max_bad,
        max_pixels=max_pixels,
        limit=limit,
        shard=shard,
        repair=repair,
        overwrite=overwrite,
        ignore_unlabelled=ignore_unlabelled,
    )
    from featurize import report, run, work

    if dry_run:
        estimated = report.estimate(work.plan_work(settings))
        print_lines([json.dumps(estimated)] if as_json else report.estimate_lines(estimated))
        return
    with progress_bar(quiet=ctx.obj) as progress:
        summary = run.featurize(settings, progress=progress)
    say(ctx, report.summary_lines(summary))
    if as_json:
        print_lines([json.dumps(summary.to_json())])
    if summary.n_quarantined:
        raise typer.Exit(_QUARANTINED)


@app.command(epilog="Example: cli backbones")
def backbones(config: Config = None, as_json: AsJson = False) -> None:
    """List the networks: columns, weights, licence, and whether their weights are on this machine."""
    from featurize import report
    from featurize.backbones import list_backbones

    for line in report.backbone_lines(list_backbones(), as_json=as_json):
        print_lines([line])


@app.command(epilog="Example: cli merge --out features")
def merge(
    out: Annotated[Path, typer.Option(help="Folder in which the shards ran.")] = _DEFAULTS.out,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Publish what shards have computed; needed only where none of them could."""
    from featurize.merge import merge as merge_parts

    published = merge_parts(out)
    told = {path.as_posix(): n_quarantined for path, n_quarantined in published.items()}
    if as_json:
        print_lines([json.dumps(told)])
    else:
        print_lines([f"{path}: published" + (f", {n} images quarantined" if n else "") for path, n in told.items()])
    if any(told.values()):
        raise typer.Exit(_QUARANTINED)
