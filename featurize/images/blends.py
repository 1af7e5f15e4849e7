"""How an image's channels reach a network that takes three: ``--channels``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from features_cache.errors import OptionError, did_you_mean, listed

COLOURS = ("red", "green", "blue")
EACH, ADAPT, NONE = "each", "adapt", "none"
_MOST_CHANNELS = 12


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    """What one network input is made of.

    Parameters
    ----------
    channels : tuple of str
        Three names, or one that is seen as grey RGB; any number where ``is_widened``. Empty for the three colours of an ordinary
        image that nobody named.
    label : str
        What the names of its blocks end in; empty likewise.
    is_widened : bool
        Whether the network's first convolution is made to take them all.
    """

    channels: tuple[str, ...] = ()
    label: str = ""
    is_widened: bool = False

    @property
    def n_inputs(self) -> int:
        """Channels that the network takes."""
        return len(self.channels) if self.is_widened else 3

    def places(self, planes: Sequence[str]) -> tuple[int, ...]:
        """Return which plane each input channel is; -1 for one of zeros."""
        named = self.channels or tuple(planes)
        named = named * 3 if len(named) == 1 and not self.is_widened else named
        return tuple(-1 if name == NONE else list(planes).index(name) for name in named)


def named_channels(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the channels that ``--channels`` names, each once, in order.

    Examples
    --------
    >>> named_channels(["red+green+blue", "yellow+blue+none"])
    ('red', 'green', 'blue', 'yellow')
    """
    names = (name for text in texts if text not in {EACH, ADAPT} for name in text.split("+") if name != NONE)
    return tuple(dict.fromkeys(names))


def parse_blends(texts: Sequence[str], planes: Sequence[str]) -> tuple[Blend, ...]:
    """Read what ``--channels`` says of planes that are there.

    ``red,green,blue`` is one blend, and ``er`` one channel as grey; where a text holds a plus, or is ``each`` or ``adapt``, each
    text is a blend of its own: ``red+green+blue,yellow+blue+none``.

    Parameters
    ----------
    texts : sequence of str
        The comma-separated list; empty for the three planes that there are.
    planes : sequence of str
        Names of an image's planes.

    Returns
    -------
    tuple of Blend

    Raises
    ------
    OptionError
        If a channel is unknown, a blend is not of one or three, or one is named twice.

    Examples
    --------
    >>> [blend.label for blend in parse_blends(["each", "red+green+blue"], ["red", "green", "blue"])]
    ['red', 'green', 'blue', 'red+green+blue']
    """
    check_planes(planes)
    if not texts:
        if tuple(planes) == COLOURS:
            return (Blend(),)
        if len(planes) not in {1, 3}:
            msg = (
                f"images have {len(planes)} channels ({', '.join(planes)}), networks take three or one: say how with --channels, such as "
                f"{'+'.join((*planes, NONE)[:3])}, each, or adapt"
            )
            raise OptionError(msg)
        texts = list(planes)
    if any(text in {EACH, ADAPT} or "+" in text for text in texts):
        blends = [blend for text in texts for blend in _blends_of(text, planes)]
    else:
        blends = _blends_of("+".join(texts), planes)
    labels = [blend.label for blend in blends]
    doubled = sorted({label for label in labels if labels.count(label) > 1})
    if doubled:
        msg = f"--channels names {listed(doubled)} twice"
        raise OptionError(msg)
    return tuple(blends)


def check_planes(planes: Sequence[str]) -> None:
    """Check the names of an image's planes.

    Raises
    ------
    OptionError
        If one is double, or means something else in ``--channels``, or there are more than twelve.
    """
    if not 1 <= len(planes) <= _MOST_CHANNELS:
        msg = f"{len(planes)} channels ({listed(planes)}); expected 1 to {_MOST_CHANNELS}. Name those that count with --planes"
        raise OptionError(msg)
    odd = [name for name in planes if name in {EACH, ADAPT, NONE, ""} or re.search(r"[+,]", name)]
    doubled = sorted({name for name in planes if list(planes).count(name) > 1})
    if odd or doubled:
        found = f"{odd[0]!r}" if odd else f"{doubled[0]!r} twice"
        msg = f"a channel is named {found}; expected different names without plus and comma, other than {EACH}, {ADAPT} and {NONE}"
        raise OptionError(msg)


def _blends_of(text: str, planes: Sequence[str]) -> list[Blend]:
    if text == EACH:
        return [Blend(channels=(name,), label=name) for name in planes]
    if text == ADAPT:
        return [Blend(channels=tuple(planes), label=ADAPT, is_widened=True)]
    names = tuple(text.split("+"))
    for name in names:
        if name not in planes and name != NONE:
            known = (*planes, EACH, ADAPT, NONE)
            msg = f"--channels: no channel {name!r}; there are {', '.join(planes)}{did_you_mean(name, known)}"
            raise OptionError(msg)
    if len(names) not in {1, 3} or set(names) == {NONE}:
        msg = (
            f"--channels: {text} names {len(names)}; a network takes three ({'+'.join((*names, NONE, NONE)[:3])}), or one as grey. For all "
            f"of them: {EACH}, {ADAPT}, or several blends"
        )
        raise OptionError(msg)
    return [Blend(channels=names, label=text)]
