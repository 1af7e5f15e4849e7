"""Commands on images: each parses, calls one function, prints. Torch loads inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from features_cache.console import QUARANTINED, AsJson, Config, Overwrite, app, print_lines, say
from features_cache.progress import progress_bar
from features_cache.shared_options import takes
from featurize.options import what_is_computed, what_is_seen, which_images
from featurize.settings import FeaturizeSettings

_DEFAULTS = FeaturizeSettings()


@app.command(epilog="Example: cli featurize --augment 6")
@takes("network", what_is_computed, like="featurize")
@takes("seen", what_is_seen, like="featurize")
@takes("images", which_images, like="featurize")
def featurize(
    ctx: typer.Context,
    images: dict[str, Any],
    seen: dict[str, Any],
    network: dict[str, Any],
    normalise: Annotated[str, typer.Option(help="Whose pixel statistics: imagenet or dataset.")] = _DEFAULTS.normalise,
    batch_size: Annotated[str, typer.Option(help="Images read and committed together.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and its cost.")] = False,
    shard: Annotated[str | None, typer.Option(help="i/n: one of n processes that share the work.")] = None,
    engine: Annotated[str, typer.Option(help="What computes: local, or ray (a cluster's actors).")] = _DEFAULTS.engine,
    address: Annotated[
        str | None, typer.Option(help="Ray's cluster, HOST:PORT. (default: RAY_ADDRESS, or this machine)")
    ] = None,
    actors: Annotated[str, typer.Option(help="Ray's processes that hold networks.")] = "auto",
    repair: Annotated[
        bool, typer.Option("--repair", allow_from_autoenv=False, help="Compute damaged and unusable rows anew.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Pass every image and its augmented copies through frozen networks, and keep the vectors."""
    settings = FeaturizeSettings.from_options(
        **images,
        **seen,
        **network,
        normalise=normalise,
        unit_images=batch_size,
        shard=shard,
        engine=engine,
        address=address,
        n_actors=actors,
        repair=repair,
        overwrite=overwrite,
    )
    from features_cache.allocator import keep_freed_memory
    from featurize import report, run, work

    if dry_run:
        estimated = report.estimate(work.plan_work(settings))
        print_lines([json.dumps(estimated)] if as_json else report.estimate_lines(estimated))
        return
    keep_freed_memory()  # maps of a hundred megabytes come and go with every layer
    with progress_bar(quiet=ctx.obj) as progress:
        summary = run.featurize(settings, progress=progress)
    say(ctx, report.summary_lines(summary))
    if as_json:
        print_lines([json.dumps(summary.to_json())])
    if summary.n_quarantined:
        raise typer.Exit(QUARANTINED)


@app.command(epilog="Example: cli views train00 --augment 6")
@takes("seen", what_is_seen, like="featurize")
@takes("images", which_images, like="featurize")
def views(
    ctx: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Images, as the cache names them; a row each.")],
    images: dict[str, Any],
    seen: dict[str, Any],
    out: Annotated[Path, typer.Option(help="The picture, a PNG.")] = Path("sheet.png"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Draw images as the networks see them: the image itself, then its augmented copies."""
    from featurize import sheet

    drawn = sheet.write_sheet(FeaturizeSettings.from_options(**images, **seen), ids, out, replace=overwrite)
    say(ctx, drawn.warnings)
    print_lines([json.dumps(drawn.to_json())] if as_json else drawn.lines)
    if drawn.bad:
        raise typer.Exit(QUARANTINED)


@app.command(epilog="Example: cli backbones")
def backbones(
    ctx: typer.Context,
    timm: Annotated[str | None, typer.Option(help="List timm's instead that match, such as 'resnet50*'.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the networks: columns, weights, licence, and whether their weights are on this machine."""
    from featurize import report
    from featurize.backbones import listing as backbone_list

    if timm is not None:
        print_lines(list(report.backbone_lines(backbone_list.list_timm(timm), as_json=as_json, name_width=60)))
        return
    for line in report.backbone_lines(backbone_list.list_backbones(), as_json=as_json):
        print_lines([line])
    say(ctx, [backbone_list.HINT])


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
        raise typer.Exit(QUARANTINED)
