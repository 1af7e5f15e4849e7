"""Further images that train in every fold and are never scored."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

import numpy as np

from features_cache.errors import LabelError, OptionError, listed
from features_cache.reader import FeatureCache
from features_cache.recipe import Block
from features_cache.tables import read_table
from heads.arrays import Bool, Indices
from heads.features import CachedImages
from heads.fitted import check_blocks
from heads.labelled import LabelledImages, join_labels, recast
from heads.labels import read_labels, separator_of
from heads.seen import among
from heads.settings import FitSettings
from heads.targets import Targets


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """Labelled images beside those that are scored.

    Parameters
    ----------
    ids : tuple of str
    cached : CachedImages
    targets : Targets
        In the classes of the scored images.
    warnings : tuple of str
    """

    ids: tuple[str, ...]
    cached: CachedImages
    targets: Targets
    warnings: tuple[str, ...]


def read_extra(
    settings: FitSettings, scored: LabelledImages, content: Sequence[str], blocks: Sequence[Block], n_views: int
) -> Extra:
    """Read further images, without those that would give held-out ones away.

    An image whose bytes (where unknown: whose name) are those of a scored image is left out, and so is one that shares its group
    with scored images.

    Parameters
    ----------
    settings : FitSettings
        With ``extra`` and ``extra_labels``.
    scored : LabelledImages
    content : sequence of str
        Hashes of the scored images' bytes, in hexadecimal digits.
    blocks : sequence of Block
        That heads are fitted on.
    n_views : int
        Of each scored image.

    Raises
    ------
    OptionError, LabelError, TableError, CacheError, RecipeMismatch
        If the cache or the labels do not fit those of the scored images.
    """
    if settings.extra is None or settings.extra_labels is None:
        msg = "no further images; expected --extra and --extra-labels"
        raise OptionError(msg)
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(FeatureCache(settings.extra))
        check_blocks(str(settings.extra), blocks, cache.blocks)
        if cache.n_views < n_views:
            msg = (
                f"{settings.extra}: {cache.n_views} views an image, but {settings.features} has {n_views}; expected at least as "
                f"many. Type `cli featurize --augment {n_views - 1}` for it, or fit with --views 0"
            )
            raise OptionError(msg)
        images, grouped = _labelled(settings, cache)
        is_double = among(images.ids, cache.content_of(images.rows), dict(zip(scored.ids, content, strict=True)))
        kept, warnings = _without_leaks(settings, images, scored, is_double, grouped=grouped)
        targets = recast(images, scored.classes, str(settings.extra_labels)).take(kept)
        rows = images.rows[kept]
        stack.pop_all()  # the images keep their cache open
    cached = CachedImages(cache, rows, n_views)
    ids = tuple(images.ids[place] for place in kept.tolist())
    return Extra(ids=ids, cached=cached, targets=targets, warnings=(*images.warnings, *warnings))


def _labelled(settings: FitSettings, cache: FeatureCache) -> tuple[LabelledImages, bool]:
    path = settings.extra_labels
    if path is None:
        msg = "no labels of further images; expected --extra-labels"
        raise OptionError(msg)
    grouped = settings.group_column is not None and settings.group_column in read_table(path).columns
    table, warnings = read_labels(
        path,
        id_column=settings.id_column,
        label_column=settings.label_column,
        separator=settings.separator,
        group_column=settings.group_column if grouped else None,
        drop_missing=settings.drop_missing,
        will_fold=False,
    )
    there = {name for names in table["classes"] if names for name in names}
    images = join_labels(
        table,
        cache.ids,
        cache.good,
        source=str(path),
        separator=separator_of(settings.label_column, settings.separator),
        grouped=grouped,
        exclude_class=[name for name in settings.exclude_class if name in there],
        ignore_unlabelled=settings.ignore_unlabelled,
        least_classes=1,
        warnings=warnings,
    )
    return images, grouped


def _without_leaks(
    settings: FitSettings, images: LabelledImages, scored: LabelledImages, is_double: Bool, *, grouped: bool
) -> tuple[Indices, list[str]]:
    warnings = []
    shares_group = np.zeros(images.n_images, dtype=bool)
    if grouped and images.groups is not None:
        known = np.isin(images.group_names, scored.group_names)
        shares_group = known[images.groups]
    elif settings.group_column is not None:
        warnings.append(
            f"{settings.extra_labels} has no column {settings.group_column!r}: nobody can tell whether further images share a "
            f"group with held-out ones; if they do, figures are too good"
        )
    for is_bad, why in (
        (is_double, "have the bytes, or the name, of scored images"),
        (shares_group, "share a group with them"),
    ):
        if is_bad.any():
            examples = listed([images.ids[place] for place in np.flatnonzero(is_bad).tolist()], 5)
            warnings.append(f"{settings.extra}: {int(is_bad.sum())} images {why} ({examples}); left out")
    kept = np.flatnonzero(~(is_double | shares_group))
    if not len(kept):
        msg = f"{settings.extra}: no image is left to learn from ({'; '.join(warnings)}); expected further images. Leave --extra out"
        raise LabelError(msg)
    return kept, warnings
