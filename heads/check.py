"""Everything about labels that could stop `cli fit-heads`, looked at before there are features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from features_cache.errors import listed
from features_cache.findings import Findings
from heads.arrays import Bool
from heads.gather import drawn_folds, labelled
from heads.settings import FitSettings


def check_labels(asked: Mapping[str, Any], ids: Sequence[str], good: Bool) -> Findings:
    """Read labels, join them to the images, and draw the folds.

    Parameters
    ----------
    asked : mapping of str to object
        Fields of ``FitSettings``; the features are not looked at.
    ids : sequence of str, length n_images
        Of the training images.
    good : bool array, shape (n_images,)
        Which of them can be used.

    Returns
    -------
    Findings
    """
    findings = Findings()
    with findings.gathered():
        settings = FitSettings(**asked)
        images = labelled(settings, ids, good)
        findings.add("warning", images.warnings)
        counts = images.targets.members.sum(axis=0).tolist()
        rarest = sorted(zip(counts, images.classes, strict=True))[:3]
        shown = listed([f"{name} {count}" for count, name in rarest])
        what = "labels" if images.targets.is_many else "classes"
        findings.add(
            "note", [f"labels: {images.n_images} images, {len(images.classes)} {what}; fewest images: {shown}"]
        )
        if images.groups is not None:
            findings.add("note", [f"groups: {len(images.group_names)}"])
        drawn_folds(settings, images)
    return findings
