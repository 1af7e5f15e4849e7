"""A folder without images: what was looked for, and where the nearest ones are."""

from __future__ import annotations

import os
from pathlib import Path

from features_cache.errors import ImagesMissing, listed

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif")
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")


def nothing_found(root: Path, pattern: str | None) -> ImagesMissing:
    """Say that a folder holds no image, and what to do; ``pattern`` is that of channel files."""
    archives = sorted(path.name for path in root.iterdir() if path.suffix.lower() in ARCHIVES)
    if archives:
        return ImagesMissing(f"{root}: holds archives ({listed(archives, 5)}) and no images; unpack them first")
    nearest = _nearest_with_images(root)
    hint = f" The nearest folder that holds images is {nearest}" if nearest else ""
    return ImagesMissing(f"{root}: no images; looked for {looked_for(pattern)}.{hint}")


def looked_for(pattern: str | None) -> str:
    """Say which files would have been images."""
    return f"files named {pattern!r}" if pattern else f"files that end in {' '.join(EXTENSIONS)}"


def _nearest_with_images(root: Path) -> Path | None:
    """Look in the folder itself and its neighbours, one level of folders deep."""
    for folder in (root, *_folders_in(root.resolve().parent)):
        for candidate in (folder, *_folders_in(folder)):
            if any(path.suffix.lower() in EXTENSIONS for path in _entries(candidate)):
                return candidate
    return None


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted; nothing of one that may not be read."""
    return sorted(folder.iterdir()) if os.access(folder, os.R_OK | os.X_OK) else []
