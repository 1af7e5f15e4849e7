"""Labels joined to the images of a cache by id: which rows may be learned from, and what they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from features_cache.errors import LabelError, did_you_mean, listed
from heads.arrays import Bool, Indices
from heads.targets import ManyLabels, OneLabel, Targets

_MOST_EXAMPLES = 5
_CURE = "Complete the CSV, check --id-column, or leave them out with --ignore-unlabelled"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImages:
    """The images of a cache that have a label, in the cache's order.

    Parameters
    ----------
    ids : tuple of str, length n_images
        Their ids.
    rows : int64 array, shape (n_images,)
        Their rows in the cache, ascending.
    targets : Targets
        Their classes; every class occurs.
    classes : tuple of str, length n_classes
        Names, sorted; as numbers where all are whole numbers.
    separator : str or None
        What stands between labels where an image may have many; None where it has one.
    groups : int64 array, shape (n_images,), or None
        Group indices; None where images stand for themselves.
    group_names : tuple of str
        Name of each group; empty without groups.
    n_quarantined : int
        Labelled images left out because the cache holds zeros for them.
    n_unlabelled : int
        Images of the cache that no label was given for.
    warnings : tuple of str
        What the user should hear of.
    """

    ids: tuple[str, ...]
    rows: Indices
    targets: Targets
    classes: tuple[str, ...]
    separator: str | None
    groups: Indices | None
    group_names: tuple[str, ...]
    n_quarantined: int
    n_unlabelled: int
    warnings: tuple[str, ...]

    @property
    def n_images(self) -> int:
        """How many images have a label."""
        return len(self.ids)

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def class_counts(self) -> Indices:
        """Images of each class: int64 array, shape (n_classes,)."""
        return self.targets.counts

    @property
    def label_texts(self) -> list[str]:
        """Each image's label as one text, or its labels with the separator between them."""
        return label_texts(self.targets.members, self.classes, self.separator or " ")


def label_texts(members: Bool, classes: Sequence[str], separator: str) -> list[str]:
    """Write each image's classes as one text.

    Parameters
    ----------
    members : bool array, shape (n_images, n_classes)
    classes : sequence of str
    separator : str

    Returns
    -------
    list of str, length n_images
    """
    return [separator.join(classes[place] for place in np.flatnonzero(row).tolist()) for row in members]


def in_order(names: Collection[str]) -> list[str]:
    """Sort names of classes: as numbers where all are whole numbers, else as text.

    Examples
    --------
    >>> in_order({"10", "9"}), in_order({"10", "9", "a"})
    (['9', '10'], ['10', '9', 'a'])
    """
    if all(name.isascii() and name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def as_targets(names_of: Sequence[Collection[str]], classes: Sequence[str], *, many: bool) -> Targets:
    """Turn the names of each image's classes into targets."""
    place_of = {name: place for place, name in enumerate(classes)}
    if not many:
        return OneLabel(np.array([place_of[name] for (name,) in names_of], dtype=np.int64), len(classes))
    members = np.zeros((len(names_of), len(classes)), dtype=bool)
    for image, names in enumerate(names_of):
        members[image, [place_of[name] for name in names]] = True
    return ManyLabels(members)


def join_labels(
    table: pd.DataFrame,
    ids: Sequence[str],
    good: Bool,
    *,
    source: str,
    separator: str | None = None,
    grouped: bool = False,
    exclude_class: Sequence[str] = (),
    ignore_unlabelled: bool = False,
    least_classes: int = 2,
    warnings: Sequence[str] = (),
) -> LabelledImages:
    """Join labels to the images of a cache.

    Parameters
    ----------
    table : DataFrame
        As :func:`read_labels` gives.
    ids : sequence of str, length n_rows
        The cache's ids, in its order.
    good : bool array, shape (n_rows,)
        False for quarantined images; they are left out and counted.
    source : str
        What to call the labels in messages.
    separator : str, optional
        What stands between labels where an image may have many; None where it has one.
    grouped : bool
        Whether the group cells mean anything.
    exclude_class : sequence of str
        Classes that are left out, with the images that are of no other.
    ignore_unlabelled : bool
        Whether images without a label, and labels without an image, are left out and told (an error otherwise).
    least_classes : int
        2 to learn from, 1 to evaluate.
    warnings : sequence of str
        Told on.

    Returns
    -------
    LabelledImages

    Raises
    ------
    LabelError
        If ids do not match, a class to exclude is unknown, or too few classes are left.
    """
    known = set(ids)
    without_image = [image_id for image_id in table["id"] if image_id not in known]
    labelled = set(table["id"])
    without_label = [image_id for image_id in ids if image_id not in labelled]
    unmatched = _unmatched(len(table), len(ids), without_image, without_label)
    if unmatched and not ignore_unlabelled:
        msg = f"{source}: {unmatched}; expected one label for each image of the cache. {_CURE}"
        raise LabelError(msg)
    if unmatched:
        warnings = (*warnings, f"{source}: {unmatched}; left out")
    present = in_order({name for names in table["classes"] if names for name in names})
    for name in exclude_class:
        if name not in present:
            msg = (
                f"--exclude-class {name!r}: no such class; {source} has {listed(present)}{did_you_mean(name, present)}"
            )
            raise LabelError(msg)
    excluded = frozenset(exclude_class)
    is_left_out = [names is None or bool(names and excluded.issuperset(names)) for names in table["classes"]]
    kept = table.loc[~np.array(is_left_out, dtype=bool)].set_index("id")
    chosen = kept.index.intersection(pd.Index(list(ids), dtype=object))
    cells = kept.loc[chosen]
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    rows = np.array([row_of[image_id] for image_id in chosen], dtype=np.int64)
    order = np.argsort(rows)
    order = order[good[rows[order]]]
    names_of = [frozenset(cells["classes"].iloc[place]) - excluded for place in order]
    classes = in_order(frozenset().union(*names_of))
    if len(classes) < least_classes:
        msg = f"{source}: {len(order)} usable images in {len(classes)} class ({listed(classes)}); expected at least {least_classes}"
        raise LabelError(msg)
    group_names, groups = np.unique(cells["group"].to_numpy(dtype="U")[order], return_inverse=True)
    return LabelledImages(
        ids=tuple(str(chosen[place]) for place in order),
        rows=rows[order],
        targets=as_targets(names_of, classes, many=separator is not None),
        classes=tuple(classes),
        separator=separator,
        groups=groups.astype(np.int64) if grouped else None,
        group_names=tuple(group_names.tolist()) if grouped else (),
        n_quarantined=len(rows) - len(order),
        n_unlabelled=len(without_label),
        warnings=tuple(warnings),
    )


def _unmatched(n_labelled: int, n_rows: int, without_image: Sequence[str], without_label: Sequence[str]) -> str:
    parts = []
    if without_image:
        parts.append(
            f"{len(without_image)} of {n_labelled} labelled ids have no image ({listed(without_image, _MOST_EXAMPLES)})"
        )
    if without_label:
        parts.append(f"{len(without_label)} of {n_rows} images have no label ({listed(without_label, _MOST_EXAMPLES)})")
    return "; ".join(parts)


def recast(images: LabelledImages, classes: Sequence[str], source: str) -> Targets:
    """Return images' targets as indices into other classes.

    Raises
    ------
    LabelError
        If they have a class that is not among them.
    """
    unknown = [name for name in images.classes if name not in classes]
    if unknown:
        msg = f"{source}: labels {listed(unknown)} are no classes of the run; it knows {listed(list(classes))}"
        raise LabelError(msg)
    names_of = [[images.classes[place] for place in np.flatnonzero(row).tolist()] for row in images.targets.members]
    return as_targets(names_of, classes, many=images.targets.is_many)
