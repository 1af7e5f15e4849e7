"""Every error that permafeat raises on purpose.

Each leaf also derives from the builtin error that fits, so a caller may catch either::

    PermafeatError                     exit  a mistake the user can mend, unless a branch says otherwise
    ├── OptionError (ValueError)         2   a flag, a key of permafeat.toml, a name
    ├── OutputExists (FileExistsError)   2   something stands where we would write
    ├── InputError                       2   what the user gave
    │   ├── ImagesMissing (FileNotFoundError)
    │   ├── ImageChanged (RuntimeError)
    │   ├── TooManyBadImages (RuntimeError)
    │   ├── TableError (ValueError)          a CSV that cannot be read as it should
    │   └── LabelError (ValueError)          labels that cannot be learned from
    ├── WeightsError                     2
    │   ├── WeightsMissing (FileNotFoundError)
    │   └── WeightsMismatch (ValueError)
    ├── CacheError                       2
    │   ├── CacheMissing (FileNotFoundError)
    │   ├── CacheIncomplete (RuntimeError)
    │   ├── CacheDamaged (OSError)
    │   └── RecipeMismatch (ValueError)
    ├── RunError (ValueError)            2   a run folder or head file that cannot be used
    ├── SubmissionError (ValueError)     2
    ├── Refused                          3   unsafe to go on
    │   ├── UnsafePath (ValueError)
    │   ├── UnsafeFile (ValueError)          weights that carry code, and the like
    │   └── ForeignCache (ValueError)
    └── Stopped                         75   stopped early; typing the command again goes on
        ├── StoppedBySignal (RuntimeError)
        ├── DeviceLost (RuntimeError)
        ├── ClusterLost (RuntimeError)
        ├── StoreUnreachable (OSError)       images by URL: a network or store that gives no answer
        └── DiskFull (OSError)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class PermafeatError(Exception):
    """Root of the tree; the command line catches this and nothing broader.

    Attributes
    ----------
    exit_code : int
        What the process ends with when nobody catches the error.
    """

    exit_code = 2


class OptionError(PermafeatError, ValueError):
    """A flag, a configuration key or a name that is not known or not allowed."""


class OutputExists(PermafeatError, FileExistsError):
    """Something that we did not write, or must not replace, stands at the output's place."""


class InputError(PermafeatError):
    """The images or tables that the user gave."""


class ImagesMissing(InputError, FileNotFoundError):
    """No image, or fewer images than were asked for."""


class ImageChanged(InputError, RuntimeError):
    """An image is no longer the file that the plan was made from."""


class TooManyBadImages(InputError, RuntimeError):
    """More images were quarantined than ``--max-bad`` allows."""


class TableError(InputError, ValueError):
    """A CSV file that is missing, empty, malformed or lacks a column."""


class LabelError(InputError, ValueError):
    """Labels that do not fit the images, or from which nothing can be learned."""


class WeightsError(PermafeatError):
    """The pretrained networks."""


class WeightsMissing(WeightsError, FileNotFoundError):
    """Weights that are not on this machine and cannot be downloaded."""


class WeightsMismatch(WeightsError, ValueError):
    """Weights of another network, or not the bytes that their name promises."""


class CacheError(PermafeatError):
    """The feature cache."""


class CacheMissing(CacheError, FileNotFoundError):
    """There is no cache at the path."""


class CacheIncomplete(CacheError, RuntimeError):
    """Featurize has not finished; the parts wait for the command to be typed again."""


class CacheDamaged(CacheError, OSError):
    """Bytes of a cache or part are not those that were written."""


class RecipeMismatch(CacheError, ValueError):
    """Features made by another recipe than the one asked for."""


class RunError(PermafeatError, ValueError):
    """A run folder or a head file that cannot be used."""


class SubmissionError(PermafeatError, ValueError):
    """A submission that would be wrong; nothing is written."""


class Refused(PermafeatError):
    """Refused for safety."""

    exit_code = 3


class UnsafePath(Refused, ValueError):
    """A path that leaves the folder it was promised in, or is not a regular file."""


class UnsafeFile(Refused, ValueError):
    """A file that would run code when loaded."""


class ForeignCache(Refused, ValueError):
    """An HDF5 file that we did not write, or that reaches outside itself."""


class Stopped(PermafeatError):
    """Stopped early; what was committed stays and the same command goes on from there."""

    exit_code = 75


class StoppedBySignal(Stopped, RuntimeError):
    """SIGINT, SIGTERM or SIGHUP."""


class DeviceLost(Stopped, RuntimeError):
    """A GPU that is no longer there, or too small."""


class StoreUnreachable(Stopped, OSError):
    """A store of images that gave no answer, however often it was asked."""


class ClusterLost(Stopped, RuntimeError):
    """The cluster that computed, or its head, is no longer there."""


class DiskFull(Stopped, OSError):
    """No space, or no quota, left on the device."""


def image_changed(name: object) -> ImageChanged:
    """Say that an image is not the one that was planned."""
    return ImageChanged(f"{name}: changed since the run began. Put it back as it was, or begin anew with --overwrite")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the nearest known word, as the tail of an error message.

    Parameters
    ----------
    word : str
        What was typed.
    known : iterable of str
        What would have been right.

    Returns
    -------
    str
        Empty where nothing is near.

    Examples
    --------
    >>> did_you_mean("resnet81", ["vgg19", "resnet18"])
    "; did you mean 'resnet18'?"
    >>> did_you_mean("xyz", ["vgg19"])
    ''
    """
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def listed(items: Sequence[object], most: int = 20) -> str:
    """Show the first of a list of findings, and how many there are in all.

    Examples
    --------
    >>> listed(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    shown = ", ".join(repr(item) for item in items[:most])
    rest = len(items) - most
    return shown if rest <= 0 else f"{shown} and {rest} more"
