"""The command line: every command parses, calls one function, prints. Torch and scikit-learn load inside the commands."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from features_cache.config import CONFIG_NAME, read_defaults
from features_cache.errors import PermafeatError
from features_cache.progress import progress_bar
from featurize.settings import FeaturizeSettings

app = typer.Typer(
    name="cli",
    help="Featurize images once with frozen networks, fit heads on the features in seconds, submit the average.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "PERMAFEAT", "help_option_names": ["-h", "--help"]},
)
_IMAGES = FeaturizeSettings()
TRAIN_CACHE, TEST_CACHE = (_IMAGES.out / f"{split}.h5" for split in ("train", "test"))
LABELS, SAMPLE = Path("data/train.csv"), Path("data/sample_submission.csv")
QUARANTINED = 4


def _configured(ctx: typer.Context, file: Path | None) -> Path | None:
    """Take the command's defaults from permafeat.toml: flags and environment come before them."""
    path = file or Path(CONFIG_NAME)
    if not ctx.resilient_parsing and (file is not None or path.is_file()):
        known = (command.callback for command in app.registered_commands)
        commands = {command.__name__.replace("_", "-"): command for command in known if command}
        ctx.default_map = read_defaults(path, str(ctx.info_name), commands)
    return file


_CONFIG = typer.Option("--config", is_eager=True, callback=_configured, help=f"Defaults. (default: {CONFIG_NAME})")
Config = Annotated[Path | None, _CONFIG]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs on stdout.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin anew where something stands already.")]
Heads = Annotated[list[str], typer.Option("--heads", help="Names, comma-separated or repeated.")]


def _split(values: Sequence[str]) -> tuple[str, ...]:
    """Take apart a list that was given comma-separated, repeated, or both."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None


def _table(table: Any) -> None:  # noqa: ANN401 - rich is imported where it is needed
    """Print a rich table on stdout, never folded below what it needs."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _print(lines: Sequence[str], *, file: Any = None) -> None:  # noqa: ANN401 - a text stream
    print("\n".join(lines), file=file or sys.stdout)


def _say(ctx: typer.Context, lines: Sequence[str]) -> None:
    if lines and not ctx.obj:
        _print(lines, file=sys.stderr)


def _version(wanted: bool) -> None:
    if wanted:
        _print([f"permafeat {metadata.version('permafeat')}"])
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only data and errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show where an error arose.")] = False,
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Show it.")] = False,
) -> None:
    ctx.obj = quiet


@app.command(epilog="Example: cli featurize --augment 6")
def featurize(
    ctx: typer.Context,
    train_images: Annotated[Path, typer.Option(help="Folder of training images.")] = _IMAGES.train_images,
    test_images: Annotated[Path, typer.Option(help="Folder of test images.")] = _IMAGES.test_images,
    labels: Annotated[Path | None, typer.Option(help="CSV whose ids say which training images there are.")] = None,
    sample: Annotated[Path | None, typer.Option(help="Sample submission: says which test images there are.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of ids in --labels.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the caches.")] = _IMAGES.out,
    augment: Annotated[int, typer.Option(help="Augmented copies beside each image.")] = _IMAGES.augment,
    tta: Annotated[int | None, typer.Option(help="The same for test images. (default: as --augment)")] = None,
    backbone: Annotated[list[str], typer.Option(help="Networks; `cli backbones` lists them.")] = list(
        _IMAGES.backbones
    ),
    weights: Annotated[list[str], typer.Option(help="imagenet, random, a folder, or NAME=FILE.")] = list(
        _IMAGES.weights
    ),
    pattern: Annotated[str | None, typer.Option(help="Channel files: '{id}_{channel}.png'.")] = None,
    channels: Annotated[list[str], typer.Option(help="Channels, in stacking order.")] = [],
    scale: Annotated[str, typer.Option(help="Pixel value that becomes 1: dtype, or such as 4095.")] = _IMAGES.scale,
    size: Annotated[int, typer.Option(help="Side of the networks' input, px.")] = _IMAGES.size_px,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = _IMAGES.device,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = _IMAGES.precision,
    batch_size: Annotated[str, typer.Option(help="Images read and committed together.")] = "auto",
    workers: Annotated[str, typer.Option(help="Threads that read images.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of augmentation and random weights.")] = _IMAGES.seed,
    dtype: Annotated[str, typer.Option(help="Number type in the cache: float16 or float32.")] = _IMAGES.storage,
    max_bad: Annotated[float, typer.Option(help="Share of images that may be unusable.")] = _IMAGES.max_bad,
    max_pixels: Annotated[int, typer.Option(help="Largest image that is decoded.")] = _IMAGES.max_pixels,
    limit: Annotated[int | None, typer.Option(help="Only the first images of each split, by id.")] = None,
    ignore_unlabelled: Annotated[bool, typer.Option(help="Leave out images without a row in --labels.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and its cost.")] = False,
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
        out=out,
        augment=augment,
        tta=tta,
        backbones=_split(backbone),
        weights=_split(weights),
        pattern=pattern,
        channels=_split(channels),
        scale=scale,
        size_px=size,
        device=device,
        precision=precision,
        unit_images=batch_size,
        n_workers=workers,
        seed=seed,
        storage=dtype,
        max_bad=max_bad,
        max_pixels=max_pixels,
        limit=limit,
        overwrite=overwrite,
        ignore_unlabelled=ignore_unlabelled,
    )
    from featurize import report, run, work

    if dry_run:
        estimated = report.estimate(work.plan_work(settings))
        _print([json.dumps(estimated)] if as_json else report.estimate_lines(estimated))
        return
    with progress_bar(quiet=ctx.obj) as progress:
        summary = run.featurize(settings, progress=progress)
    _say(ctx, report.summary_lines(summary))
    if as_json:
        _print([json.dumps(summary.to_json())])
    if summary.n_quarantined:
        raise typer.Exit(QUARANTINED)


@app.command("fit-heads", epilog="Example: cli fit-heads --group-column well")
def fit_heads(
    ctx: typer.Context,
    features: Annotated[Path, typer.Option(help="Cache of the training images.")] = TRAIN_CACHE,
    test_features: Annotated[
        Path | None, typer.Option(help=f"Cache of the test images. (default: {TEST_CACHE})")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help=f"CSV of labels. (default: {LABELS}, else folders)")] = None,
    id_column: Annotated[str, typer.Option(help="Its column of ids.")] = "id",
    label_column: Annotated[str, typer.Option(help="Its column of labels.")] = "label",
    group_column: Annotated[str | None, typer.Option(help="Images that share its value stay in one fold.")] = None,
    exclude_class: Annotated[list[str], typer.Option(help="Classes that are left out.")] = [],
    heads: Heads = ["ridge", "logistic", "mlp"],
    blocks: Annotated[list[str], typer.Option(help="Blocks of the cache. (default: all)")] = [],
    folds: Annotated[int, typer.Option(help="Folds of each repeat.")] = 5,
    repeats: Annotated[int, typer.Option(help="Times that the folds are drawn anew.")] = 1,
    views: Annotated[str, typer.Option(help="all or 0: which views train and predict.")] = "all",
    class_weight: Annotated[str, typer.Option(help="balanced or none.")] = "balanced",
    seed: Annotated[int, typer.Option(help="Of folds, networks and bootstrap.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder. (default: runs/001, 002, ...)")] = None,
    ignore_unlabelled: Annotated[bool, typer.Option(help="Leave out images without a row in --labels.")] = False,
    drop_missing: Annotated[bool, typer.Option(help="Leave out rows whose label is blank, NaN or ?.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Fit heads on cached features; every figure comes from images that the head never saw."""
    from heads import report, run, settings

    with progress_bar(quiet=ctx.obj) as progress:
        done = run.fit_heads(
            settings.FitSettings(
                features=features,
                labels=labels or _if_there(LABELS),
                id_column=id_column,
                label_column=label_column,
                group_column=group_column,
                exclude_class=_split(exclude_class),
                heads=_split(heads),
                blocks=_split(blocks),
                folds=folds,
                repeats=repeats,
                views=views,  # type: ignore[arg-type]
                class_weight=class_weight,  # type: ignore[arg-type]
                seed=seed,
                out=out,
                test_features=test_features or _if_there(TEST_CACHE),
                ignore_unlabelled=ignore_unlabelled,
                drop_missing=drop_missing,
            ),
            progress,
        )
    _say(ctx, [f"warning: {text}" for text in done.warnings])
    if as_json:
        _print([json.dumps({"folder": done.folder.as_posix(), **done.metrics})])
    else:
        _table(report.metrics_table(done))
    _say(ctx, [f"{done.folder}: metrics.json, oof.csv, heads, pictures; `cli submit` takes it from here"])


@app.command(epilog="Example: cli submit --run runs/001,runs/002")
def submit(
    ctx: typer.Context,
    run: Annotated[list[str], typer.Option(help="Run folders; several are averaged.")] = ["runs/latest"],
    features: Annotated[Path, typer.Option(help="Cache of the test images.")] = TEST_CACHE,
    sample: Annotated[Path | None, typer.Option(help=f"Rows, order, columns. (default: {SAMPLE})")] = None,
    out: Annotated[Path, typer.Option(help="Where the submission goes.")] = Path("submission.csv"),
    probabilities: Annotated[Path | None, typer.Option(help="Where a CSV of probabilities goes.")] = None,
    heads: Heads = [],
    fill_quarantined: Annotated[str, typer.Option(help="no, or prior: what images without features get.")] = "no",
    overwrite: Overwrite = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Average the probabilities of all heads and views, and write the submission."""
    from heads import submission

    summary = submission.submit(
        submission.SubmitSettings(
            runs=tuple(Path(name) for name in _split(run)),
            features=features,
            sample=sample or _if_there(SAMPLE),
            out=out,
            probabilities=probabilities,
            heads=_split(heads),
            overwrite=overwrite,
            fill_quarantined=fill_quarantined,  # type: ignore[arg-type]
        )
    )
    _say(ctx, submission.summary_lines(summary))
    if as_json:
        _print([json.dumps(summary.to_json())])


@app.command(epilog="Example: cli evaluate --run runs/latest --features features/new.h5 --labels new.csv")
def evaluate(
    ctx: typer.Context,
    features: Annotated[Path, typer.Option(help="Cache of images that no head was fitted on.")],
    run: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/latest"),
    labels: Annotated[Path | None, typer.Option(help="CSV of their labels. (default: folders)")] = None,
    id_column: Annotated[str | None, typer.Option(help="(default: the run's)")] = None,
    label_column: Annotated[str | None, typer.Option(help="(default: the run's)")] = None,
    group_column: Annotated[str | None, typer.Option(help="(default: the run's)")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Score a run's heads on images with known labels."""
    from heads import evaluate as evaluation
    from heads import report

    metrics = evaluation.evaluate(
        evaluation.EvaluateSettings(
            run=run,
            features=features,
            labels=labels,
            id_column=id_column,
            label_column=label_column,
            group_column=group_column,
        )
    )
    _say(ctx, [f"warning: {text}" for text in metrics["warnings"]])
    if as_json:
        _print([json.dumps(metrics)])
    else:
        _table(report.metrics_table(metrics))


@app.command(epilog="Example: cli runs")
def runs(
    folder: Annotated[Path, typer.Argument(help="Folder of run folders.")] = Path("runs"),
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List runs with their headline figures side by side."""
    from heads import report, run_folder

    found = run_folder.list_runs(folder)
    if as_json:
        _print([json.dumps(found)])
    else:
        _table(report.runs_table(found))


@app.command(epilog="Example: cli backbones")
def backbones(config: Config = None, as_json: AsJson = False) -> None:
    """List the networks: columns, weights, licence, and whether their weights are on this machine."""
    from featurize import report
    from featurize.backbones import list_backbones

    for line in report.backbone_lines(list_backbones(), as_json=as_json):
        _print([line])


@app.command(epilog="Example: cli inspect features/train.h5")
def inspect(
    path: Annotated[Path, typer.Argument(metavar="H5", help="A cache.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show what a cache holds: blocks, recipes, digests, shapes, statuses."""
    from features_cache.inspect import describe, describe_lines

    description = describe(path)
    _print([json.dumps(description)] if as_json else describe_lines(description))


def main() -> None:
    """Run the program; an error of ours is one message and its exit code, anything else a traceback and 1."""
    try:
        app()
    except PermafeatError as error:
        if {"-v", "--verbose"} & set(sys.argv[1:]):
            traceback.print_exc()
        _print([f"error: {error}"], file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
