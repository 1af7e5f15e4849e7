"""How a backbone is spelled: ``NETWORK[@REVISION][/TAP]``."""

from __future__ import annotations

import dataclasses
import re
from typing import Self

from features_cache.errors import OptionError

TIMM = "timm:"
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_LAYER = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_SPELLING = re.compile(rf"(?P<network>({TIMM})?{_WORD})(@(?P<revision>{_WORD}))?(/(?P<tap>{_LAYER}(\+{_LAYER})*))?")
# A letter or figure comes first: no option, no hidden file, no way out of a folder.
NETWORK_NAME = re.compile(_WORD)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """A backbone, taken apart.

    Parameters
    ----------
    network : str
        ``resnet18``, ``timm:resnet50.a1_in1k``, or an own network's name.
    revision : str
        Commit, branch or tag on the hub; empty for the newest. timm's networks only.
    tap : str
        Where the vector leaves the network; empty for the usual place.
    """

    network: str
    revision: str = ""
    tap: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take a spelling apart.

        Raises
        ------
        OptionError
            If it is none.

        Examples
        --------
        >>> Spelling.parse("timm:vit_small_patch14_dinov2.lvd142m@main/class+average")
        Spelling(network='timm:vit_small_patch14_dinov2.lvd142m', revision='main', tap='class+average')
        """
        match = _SPELLING.fullmatch(text)
        if match is None:
            msg = f"--backbone {text!r}; expected NETWORK[@REVISION][/TAP], such as resnet18, vit_b_16/class+average or timm:resnet50.a1_in1k"
            raise OptionError(msg)
        spelling = cls(network=match["network"], revision=match["revision"] or "", tap=match["tap"] or "")
        if spelling.revision and not spelling.is_timm:
            msg = f"--backbone {text!r}: only timm's networks have revisions; expected {spelling.network}, or timm:NAME@{spelling.revision}"
            raise OptionError(msg)
        return spelling

    @property
    def is_timm(self) -> bool:
        """Whether the network is one of timm's."""
        return self.network.startswith(TIMM)

    @property
    def timm_name(self) -> str:
        """The network's name without ``timm:``."""
        return self.network.removeprefix(TIMM)

    @property
    def file_stem(self) -> str:
        """What files of the network are named after: no colon and no slash.

        Examples
        --------
        >>> Spelling.parse("timm:resnet50.a1_in1k/gem").file_stem
        'timm-resnet50.a1_in1k'
        """
        return self.network.replace(TIMM, "timm-")
