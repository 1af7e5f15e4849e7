"""Commands on features: each parses, calls one function, prints. Scikit-learn and torch load inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from features_cache.console import (
    AsJson,
    Config,
    IgnoreUnlabelled,
    Overwrite,
    add_tables,
    app,
    if_there,
    print_lines,
    print_table,
    say,
    split_list,
    tables_of,
)
from features_cache.interrupt import stop_on_signals
from features_cache.progress import progress_bar
from features_cache.shared_options import takes
from heads.options import DropMissing, LabelColumn, Separator, how_labelled

_TRAIN_CACHE, _TEST_CACHE = Path("features/train.h5"), Path("features/test.h5")
_TRAIN_CELLS, _TEST_CELLS = Path("features/train_cells.h5"), Path("features/test_cells.h5")
_CELLS_TABLE = Path("cells/test.csv")
_LABELS, _SAMPLE = Path("data/train.csv"), Path("data/sample_submission.csv")
_OWN_HEADS = add_tables("heads")
Heads = Annotated[list[str], typer.Option("--heads", help="Names, comma-separated or repeated.")]


@app.command("fit-heads", epilog="Example: cli fit-heads --group-column well")
@takes("meant", how_labelled, like="fit-heads")
def fit_heads(
    ctx: typer.Context,
    meant: dict[str, Any],
    features: Annotated[Path, typer.Option(help="Cache of the training images.")] = _TRAIN_CACHE,
    test_features: Annotated[
        Path | None, typer.Option(help=f"Cache of the test images. (default: {_TEST_CACHE.name} beside)")
    ] = None,
    cells: Annotated[
        Path | None, typer.Option(help=f"Cache of the training images' cells, such as {_TRAIN_CELLS}.")
    ] = None,
    test_cells: Annotated[
        Path | None, typer.Option(help=f"Cache of the test images' cells. (default: {_TEST_CELLS.name} beside)")
    ] = None,
    pool: Annotated[
        str | None, typer.Option(help="Of an image's cells: mean or maximum. (default: mean, maximum of many labels)")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help=f"CSV of labels. (default: {_LABELS}, else folders)")] = None,
    id_column: Annotated[str, typer.Option(help="Its column of ids.")] = "id",
    heads: Annotated[
        list[str],
        typer.Option(help="ridge, logistic, mlp, linear, knn, or of permafeat.toml. (default: the first 3, and those)"),
    ] = [],
    blocks: Annotated[
        list[str], typer.Option(help="Blocks of the cache, such as '*:red+green+blue'. (default: all)")
    ] = [],
    views: Annotated[str, typer.Option(help="all or 0: which views train and predict.")] = "all",
    class_weight: Annotated[
        str | None, typer.Option(help="balanced or none. (default: balanced, unless resampled)")
    ] = None,
    resample: Annotated[str, typer.Option(help="none, over, under or both.")] = "none",
    most_copies: Annotated[int, typer.Option(help="Of an image, with --resample over.")] = 10,
    least_share: Annotated[float, typer.Option(help="Of a class, that --resample under keeps.")] = 0.25,
    force: Annotated[bool, typer.Option("--force", help="Resample and weigh by class at once.")] = False,
    extra: Annotated[Path | None, typer.Option(help="Cache of images that train in every fold, unscored.")] = None,
    extra_labels: Annotated[Path | None, typer.Option(help="CSV of their labels.")] = None,
    prior: Annotated[
        str | None, typer.Option(help="balanced or train: class frequencies that probabilities speak of.")
    ] = None,
    ensemble: Annotated[str, typer.Option(help="average, or greedy: weights chosen inside the folds.")] = "average",
    thresholds: Annotated[str, typer.Option(help="Of many labels: each, common, or a number.")] = "each",
    at_least_one: Annotated[bool, typer.Option(help="Whether every image is called something.")] = True,
    group_near_duplicates: Annotated[
        bool, typer.Option("--group-near-duplicates", help="Keep images that look like copies in one fold.")
    ] = False,
    ablate: Annotated[bool, typer.Option("--ablate", help="Estimate anew without each block.")] = False,
    search: Annotated[int, typer.Option(help="Settings of each head to try, inside each fold; 0: its grid alone.")] = 0,
    seed: Annotated[int, typer.Option(help="Of folds, networks, bootstrap and search.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder. (default: runs/001, 002, ...)")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
    memory_limit: Annotated[
        str | None, typer.Option(help="Of the whole process, such as 2GB; what has no room stays on the disk.")
    ] = None,
    ignore_unlabelled: IgnoreUnlabelled = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Fit heads on cached features; every figure comes from images that the head never saw."""
    from features_cache import allocator
    from heads import memory, report, run, settings
    from heads.estimators import own_heads

    tables, file = tables_of(_OWN_HEADS, config)
    own = tables or {}
    own_heads.own_kinds(own, f"{file}: ")  # here first, so that messages name the file
    if memory_limit is None:
        allocator.keep_freed_memory()
    consequence = "nothing was written. Type the same command again to begin anew"
    with stop_on_signals(consequence) as flag, progress_bar(quiet=ctx.obj) as show:

        def progress(what: str, n_done: int, n_total: int) -> None:
            flag.check()
            show(what, n_done, n_total)

        done = run.fit_heads(
            settings.FitSettings(
                features=features,
                labels=labels or if_there(_LABELS),
                id_column=id_column,
                **meant,
                heads=split_list(heads) if heads else None,
                own_heads=own,
                blocks=split_list(blocks),
                views=views,  # type: ignore[arg-type]
                class_weight=class_weight,  # type: ignore[arg-type]
                resample=resample,  # type: ignore[arg-type]
                most_copies=most_copies,
                least_share=least_share,
                force=force,
                extra=extra,
                extra_labels=extra_labels,
                group_near_duplicates=group_near_duplicates,
                ablate=ablate,
                prior=prior,  # type: ignore[arg-type]
                ensemble=ensemble,  # type: ignore[arg-type]
                thresholds=thresholds,
                at_least_one=at_least_one,
                search=search,
                seed=seed,
                out=out,
                device=device,
                memory_limit=None if memory_limit is None else memory.parse_size(memory_limit),
                test_features=test_features or if_there(features.with_name(_TEST_CACHE.name)),
                cells=cells,
                test_cells=test_cells or (if_there(cells.with_name(_TEST_CELLS.name)) if cells else None),
                pool=pool,  # type: ignore[arg-type]
                ignore_unlabelled=ignore_unlabelled,
            ),
            progress,
        )
    say(ctx, [f"warning: {text}" for text in done.warnings])
    say(ctx, list(done.notes))
    if as_json:
        print_lines([json.dumps({"folder": done.folder.as_posix(), **done.metrics})])
    else:
        print_table(report.metrics_table(done))
        if "cells" in done.metrics:
            print_table(report.fusion_table(done.metrics))
        if done.search:
            print_table(report.search_table(done.search))
        if "ablation" in done.metrics:
            print_table(report.ablation_table(done.metrics["ablation"]))
    say(ctx, [f"{done.folder}: metrics.json, oof.csv, heads, pictures; `cli submit` takes it from here"])


@app.command(epilog="Example: cli submit --run runs/001,runs/002")
def submit(
    ctx: typer.Context,
    run: Annotated[list[str], typer.Option(help="Run folders; several are averaged.")] = ["runs/latest"],
    features: Annotated[Path, typer.Option(help="Cache of the test images.")] = _TEST_CACHE,
    sample: Annotated[Path | None, typer.Option(help=f"Rows, order, columns. (default: {_SAMPLE})")] = None,
    test_cells: Annotated[
        Path | None,
        typer.Option(help=f"Cache of their cells, for runs with --cells. (default: {_TEST_CELLS.name} beside)"),
    ] = None,
    cells_table: Annotated[
        Path | None, typer.Option(help=f"Their table, where the sample asks for cells. (default: {_CELLS_TABLE})")
    ] = None,
    least_confidence: Annotated[
        float, typer.Option(help="Of a class of a cell that is told; the most confident one always is.")
    ] = 0.01,
    without_cells: Annotated[bool, typer.Option("--without-cells", help="Let images speak alone.")] = False,
    out: Annotated[Path, typer.Option(help="Where the submission goes.")] = Path("submission.csv"),
    format: Annotated[str, typer.Option(help="auto, label, labels or probabilities.")] = "auto",  # noqa: A002 - its name
    probabilities: Annotated[Path | None, typer.Option(help="Where a CSV of probabilities goes.")] = None,
    heads: Heads = [],
    fill_quarantined: Annotated[str, typer.Option(help="no, or prior: what images without features get.")] = "no",
    excel_safe: Annotated[
        bool, typer.Option("--excel-safe", help="An apostrophe before what a spreadsheet takes for a formula.")
    ] = False,
    overwrite: Overwrite = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Average the probabilities of all heads and views, and write the submission."""
    from heads.submitting import submission

    summary = submission.submit(
        submission.SubmitSettings(
            runs=tuple(Path(name) for name in split_list(run)),
            features=features,
            sample=sample or if_there(_SAMPLE),
            out=out,
            format=format,  # type: ignore[arg-type]
            probabilities=probabilities,
            heads=split_list(heads),
            overwrite=overwrite,
            fill_quarantined=fill_quarantined,  # type: ignore[arg-type]
            test_cells=test_cells or if_there(features.with_name(_TEST_CELLS.name)),
            cells_table=cells_table or if_there(_CELLS_TABLE),
            least_confidence=least_confidence,
            without_cells=without_cells,
            excel_safe=excel_safe,
        )
    )
    say(ctx, submission.summary_lines(summary))
    if as_json:
        print_lines([json.dumps(summary.to_json())])


@app.command(epilog="Example: cli evaluate --run runs/latest --features features/new.h5 --labels new.csv")
def evaluate(
    ctx: typer.Context,
    features: Annotated[Path, typer.Option(help="Cache of images that no head was fitted on.")],
    run: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/latest"),
    cells: Annotated[Path | None, typer.Option(help="Cache of their cells, for a run with --cells.")] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV of their labels. (default: folders)")] = None,
    id_column: Annotated[str | None, typer.Option(help="(default: the run's)")] = None,
    label_column: LabelColumn = [],
    separator: Separator = None,
    group_column: Annotated[str | None, typer.Option(help="(default: the run's)")] = None,
    drop_missing: DropMissing = False,
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
            label_column=split_list(label_column),
            separator=separator,
            group_column=group_column,
            drop_missing=drop_missing,
            cells=cells,
        )
    )
    say(ctx, [f"warning: {text}" for text in metrics["warnings"]])
    if as_json:
        print_lines([json.dumps(metrics)])
    else:
        print_table(report.metrics_table(metrics))


@app.command(epilog="Example: cli runs")
def runs(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder of run folders.")] = Path("runs"),
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List runs with their headline figures side by side."""
    from heads import report, run_folder

    found = run_folder.list_runs(folder)
    if as_json:
        print_lines([json.dumps(found)])
    else:
        print_table(report.runs_table(found))
    for row in found:
        if "error" in row:
            say(ctx, [f"warning: {row['error']}"])
