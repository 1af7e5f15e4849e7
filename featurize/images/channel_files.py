"""Images that are one file a channel: which files belong together, by their names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from features_cache.errors import ImagesMissing, OptionError
from features_cache.sources import SourceFile
from featurize.images.blends import check_planes
from featurize.images.places import Place


def compile_pattern(pattern: str, planes: Sequence[str] = ()) -> re.Pattern[str]:
    """Turn ``{id}_{channel}.png`` into an expression with the groups ``id`` and ``channel``; ``*`` stands for anything.

    Parameters
    ----------
    pattern : str
    planes : sequence of str
        Names of the channels. Unless given, a name is as short as it can be, so that ids may hold what parts the two.

    Raises
    ------
    OptionError
        If a placeholder is missing or double.

    Examples
    --------
    >>> compile_pattern("{id}_{channel}.png").fullmatch("a_b_er.png").groups()
    ('a_b', 'er')
    >>> compile_pattern("{id}_{channel}_*.tif", ["w1"]).fullmatch("plate_w1_[9A4-8C].tif")["id"]
    'plate'
    """
    pieces = re.split(r"(\{id\}|\{channel\}|\*)", pattern)
    if pieces.count("{id}") != 1 or pieces.count("{channel}") != 1:
        msg = f"--pattern {pattern!r}; expected one {{id}} and one {{channel}}, such as '{{id}}_{{channel}}.png'"
        raise OptionError(msg)
    either = "|".join(re.escape(name) for name in sorted(planes, key=len, reverse=True)) or "[^/]+?"
    groups = {"{id}": "(?P<id>.+)", "{channel}": f"(?P<channel>{either})", "*": "[^/]*?"}
    return re.compile("".join(groups.get(piece, re.escape(piece)) for piece in pieces), re.DOTALL)


def channel_sets(
    root: Place, files: Iterable[tuple[str, SourceFile]], pattern: str, planes: Sequence[str]
) -> tuple[dict[str, tuple[SourceFile | None, ...]], tuple[str, ...]]:
    """Gather the files of each image.

    Parameters
    ----------
    root : Place
        Folder of the images, for messages.
    files : iterable of (str, SourceFile)
        Each file, and before it its relative path as UTF-8 text.
    pattern : str
        If it holds no slash, it is of the name alone, and the folder belongs to the id.
    planes : sequence of str
        The channels that count, in order; all that there are, sorted, unless given.

    Returns
    -------
    sets : dict of str to tuple of (SourceFile or None)
        A file a plane for each image; None where there is none.
    planes : tuple of str

    Raises
    ------
    ImagesMissing
        If two files are one channel of one image.
    OptionError
        If the pattern cannot be used, or finds too many channels.
    """
    expression = compile_pattern(pattern, planes)
    sets: dict[str, dict[str, SourceFile]] = defaultdict(dict)
    for whole, file in files:
        folder, _, name = ("", "", whole) if "/" in pattern else whole.rpartition("/")
        match = expression.fullmatch(name)
        if match:
            image_id = f"{folder}/{match['id']}" if folder else match["id"]
            held = sets[image_id].setdefault(match["channel"], file)
            if held.path != file.path:
                first, second = sorted([held.path, file.path])
                msg = f"{root}: {first} and {second} are both channel {match['channel']} of {image_id!r} by --pattern {pattern!r}; make it narrower"
                raise ImagesMissing(msg)
    named = tuple(planes) or tuple(sorted({channel for found in sets.values() for channel in found}))
    if sets:
        check_planes(named)
    return {image_id: tuple(found.get(name) for name in named) for image_id, found in sets.items()}, named
