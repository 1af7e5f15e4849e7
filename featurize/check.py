"""Everything that could stop `cli featurize`, or make its features worth less, looked at before it runs; nothing is computed."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import ImagesMissing, PermafeatError, listed
from features_cache.findings import Findings
from features_cache.progress import Progress, silent
from features_cache.reader import FeatureCache
from features_cache.recipe import RANDOM_WEIGHTS, STORAGE_BYTES
from featurize.backbones.origin import check_choice, find_origin, licence_warnings
from featurize.backbones.own_backbones import own_names
from featurize.backbones.profile import profile_of
from featurize.backbones.shape import shape_of
from featurize.backbones.spelling import Spelling
from featurize.backbones.timm_backbones import timm_card
from featurize.backbones.timm_weights import cached_file
from featurize.backbones.weights import WeightsChoice, hub_path, parse_weights
from featurize.device import choose_device, choose_precision, choose_runtime
from featurize.images.bad_image import BadImage
from featurize.images.blends import Blend, parse_blends
from featurize.images.channels import Loaded, load_image
from featurize.images.manifest import Manifest
from featurize.images.reading import Reading
from featurize.images.splits import find_split, reading_of
from featurize.settings import FeaturizeSettings
from featurize.work import require_bytes

_MOST_SHOWN = 20
_NO_PIXELS = np.empty((0, 0, 0), np.float32)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found.

    Parameters
    ----------
    findings : Findings
    ids : sequence of str
        Of the training images; empty where they could not be listed.
    good : bool array, shape (n_images,)
        Which of them can be used.
    """

    findings: Findings
    ids: Sequence[str]
    good: NDArray[np.bool_]


def check_images(settings: FeaturizeSettings, progress: Progress = silent) -> Checked:
    """Look at images, networks' weights, what stands at the output's place, and the disk.

    Every image is decoded once. Weights are looked for and not downloaded.

    Parameters
    ----------
    settings : FeaturizeSettings
    progress : callable
        Told the split, how many of its images were looked at, and how many it has.

    Returns
    -------
    Checked
    """
    findings = Findings()
    digests: dict[str, dict[str, bytes]] = {}
    manifests, unlisted = _manifests(settings, findings)
    columns = _columns(settings, findings, _blends(settings, manifests, findings))
    with findings.gathered():
        device = choose_device(settings.device)
        choose_precision(settings.precision, device)
        choose_runtime(settings.runtime, device)
    if manifests:
        reading = reading_of(settings, manifests)
        for split, manifest in manifests.items():
            digests[split] = _decode_all(settings, split, manifest, reading, findings, progress)
        _same_bytes(digests, findings)
        manifests = {split: manifest for split, manifest in manifests.items() if split not in unlisted}
        _output(settings, manifests, columns, findings)
    train = settings.splits[0]
    ids = manifests[train].ids if train in manifests else ()
    return Checked(findings=findings, ids=ids, good=np.array([name in digests[train] for name in ids], dtype=bool))


def _manifests(settings: FeaturizeSettings, findings: Findings) -> tuple[dict[str, Manifest], set[str]]:
    """List the images of each split, and say of which splits they are what the folder holds: their table, or a file, is at fault."""
    found: dict[str, Manifest] = {}
    unlisted: set[str] = set()
    with findings.gathered():
        settings.require_folders()
    for split in settings.splits:
        planes = next((manifest.planes for manifest in found.values()), settings.named_planes)
        manifest: Manifest | None = None
        is_listed = False
        with findings.gathered():
            manifest = find_split(settings, split, planes)
            is_listed = True
        if not is_listed:
            manifest = _whatever_is_there(settings, split, planes)
            unlisted.add(split)
        if manifest is None:
            findings.add("note", [f"there is no folder of {split} images"] if is_listed else [])
            continue
        found[split] = manifest
        findings.add("note", [f"{split}: {len(manifest.ids)} images in {manifest.root}"])
        findings.add("warning", manifest.warnings)
    if not found and not findings.exit_code:
        with findings.gathered():
            msg = f"neither {settings.train_images} nor {settings.test_images} exists; name the images with --train-images and --test-images"
            raise ImagesMissing(msg)
    return found, unlisted


def _whatever_is_there(settings: FeaturizeSettings, split: str, planes: Sequence[str]) -> Manifest | None:
    """List what a folder holds, whatever its table says and whichever files would be refused: it is looked at in any case."""
    bare = dataclasses.replace(settings, labels=None, sample=None)
    try:
        return find_split(bare, split, planes, skip_unsafe=True)
    except PermafeatError:
        return None  # told already: it is why the images could not be listed at first


def _blends(settings: FeaturizeSettings, manifests: Mapping[str, Manifest], findings: Findings) -> tuple[Blend, ...]:
    planes = next((manifest.planes for manifest in manifests.values()), settings.named_planes)
    if planes:
        with findings.gathered():
            return parse_blends(settings.channels, planes)
    return (Blend(),)


def _columns(settings: FeaturizeSettings, findings: Findings, blends: tuple[Blend, ...]) -> int:
    """Look at each network and its weights; return how many columns they make together."""
    origins, columns = [], 0
    choice = WeightsChoice()
    with findings.gathered():
        choice = parse_weights(settings.weights)
        check_choice(choice, settings.backbones)
    for name in settings.backbones:
        with findings.gathered():
            size_px = settings.size_px or profile_of(name).size_px
            columns += sum(shape_of(name, size_px, blend.n_inputs).columns for blend in blends)
            if choice.pretrained and not _would_download(name, choice):
                origins.append(find_origin(name, choice))
            elif choice.pretrained:
                findings.add(
                    "warning",
                    [
                        f"{name}: its weights ({profile_of(name).weights}) are not on this machine; they would be downloaded"
                    ],
                )
    findings.add("warning", licence_warnings(origins))
    if not choice.pretrained:
        findings.add("warning", [RANDOM_WEIGHTS])
    return columns


def _would_download(name: str, choice: WeightsChoice) -> bool:
    spelling = Spelling.parse(name)
    if choice.folder is not None or spelling.network in {*own_names(), *(known for known, _ in choice.files)}:
        return False
    if spelling.is_timm:
        return cached_file(timm_card(spelling.timm_name).hub_id, spelling.revision) is None
    return not hub_path(spelling.network).is_file()


def _decode_all(
    settings: FeaturizeSettings,
    split: str,
    manifest: Manifest,
    reading: Reading,
    findings: Findings,
    progress: Progress,
) -> dict[str, bytes]:
    """Decode every image; return the hashes of those that can be used."""
    digests: dict[str, bytes] = {}
    bad: list[str] = []
    notes: collections.Counter[str] = collections.Counter()
    for number, (image_id, found) in enumerate(_loaded(settings, manifest, reading), start=1):
        progress(split, number, len(manifest.ids))
        if isinstance(found, BadImage):
            bad.append(f"{image_id}: {found.reason}")
        else:
            digests[image_id] = found.content_hash.tobytes()
            notes.update(set(found.notes))
    if bad:
        n_images = len(manifest.ids)
        shown = "".join(f"\n  {text}" for text in bad[:_MOST_SHOWN])
        more = f"\n  and {len(bad) - _MOST_SHOWN} more" if len(bad) > _MOST_SHOWN else ""
        too_many = not settings.allows(len(bad), n_images)
        outcome = f"above --max-bad {settings.max_bad:g}" if too_many else "they would be quarantined"
        text = f"{manifest.root}: {len(bad)} of {n_images} images cannot be used, {outcome}:{shown}{more}"
        findings.add("error" if too_many else "warning", [text])
    findings.add("note", [f"{split}: {count} images: {note}" for note, count in notes.most_common()])
    return digests


def _loaded(
    settings: FeaturizeSettings, manifest: Manifest, reading: Reading
) -> Iterator[tuple[str, Loaded | BadImage]]:
    def one(row: int) -> Loaded | BadImage:
        try:
            found = load_image(manifest.root, manifest.sources[row], reading)
        except BadImage as error:
            return error
        return dataclasses.replace(found, pixels=_NO_PIXELS)  # a queue of whole images would fill the memory

    with ThreadPoolExecutor(settings.n_readers) as pool:
        rows = range(len(manifest.ids))
        for row, found in zip(rows, pool.map(one, rows), strict=True):
            yield manifest.ids[row], found


def _same_bytes(digests: Mapping[str, Mapping[str, bytes]], findings: Findings) -> None:
    holders: dict[bytes, list[str]] = collections.defaultdict(list)
    for split, images in digests.items():
        for image_id, digest in images.items():
            holders[digest].append(f"{split}:{image_id}")
    groups = [" = ".join(names) for names in holders.values() if len(names) > 1]
    if groups:
        text = f"{len(groups)} groups of images are the same bytes ({listed(groups, 5)}); where copies part in a split, scores are too high"
        findings.add("warning", [text])


def _output(settings: FeaturizeSettings, manifests: Mapping[str, Manifest], columns: int, findings: Findings) -> None:
    """Look at what stands where the caches go, and whether the disk holds them."""
    n_bytes = 0
    for split, manifest in manifests.items():
        path = settings.out / f"{split}.h5"
        n_bytes += len(manifest.ids) * settings.n_views_of(split) * columns * STORAGE_BYTES[settings.storage]
        if path.exists() and not settings.overwrite:
            with findings.gathered(), FeatureCache(path) as cache:
                n_new, gone = len(set(manifest.ids) - set(cache.ids)), sorted(set(cache.ids) - set(manifest.ids))
                findings.add("note", [f"{path}: holds {cache.n_images} images; {n_new} more would be computed"])
                if gone:
                    text = f"{path}: {len(gone)} of its images are gone ({listed(gone, 5)}); put them back, choose another --out, or type --overwrite"
                    findings.add("error", [text])
    with findings.gathered():
        require_bytes(settings.out, n_bytes)
