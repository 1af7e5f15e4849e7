"""Where the weights of a run's networks came from, and under which licence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from features_cache.errors import OptionError, WeightsMissing, did_you_mean
from featurize.backbones.own_backbones import own_names
from featurize.backbones.profile import profile_of
from featurize.backbones.spelling import Spelling
from featurize.backbones.timm_backbones import timm_card
from featurize.backbones.timm_weights import commit_of, hub_file
from featurize.backbones.weights import WeightsChoice, find_weights, given_file, hub_path


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Weights and what is known of them.

    Parameters
    ----------
    file : Path or None
        None where they are random, or in an own network as it is built.
    words : str
        Name of the file, place and commit on the hub, or the distribution that brought them.
    licence : str
        Empty where nobody says.
    warning : str
        What the user should know of the licence; empty where it is permissive.
    """

    file: Path | None
    words: str
    licence: str = ""
    warning: str = ""

    @property
    def provenance(self) -> str:
        """What is written beside a cache."""
        return f"{self.words}, {self.licence}" if self.licence else self.words


RANDOM = Origin(file=None, words="random")


def check_choice(choice: WeightsChoice, names: Sequence[str]) -> None:
    """Check that every ``NAME=FILE`` is of a network of the run.

    Raises
    ------
    OptionError
        If one is not.
    """
    networks = list(dict.fromkeys(Spelling.parse(name).network for name in names))
    for name, _ in choice.files:
        if name not in networks:
            msg = f"--weights {name}=FILE: no such network in --backbone{did_you_mean(name, networks)}"
            raise OptionError(msg)


def find_origin(name: str, choice: WeightsChoice) -> Origin:
    """Find a backbone's weights, downloading them where that is the choice and they are not here yet.

    Raises
    ------
    WeightsMissing
        If they are nowhere; the message says where they would be found, and the other choices.
    WeightsMismatch
        If a file does not have the hash in its name.
    OptionError
        If a revision was asked for, and a file given.
    """
    spelling = Spelling.parse(name)
    if spelling.is_timm:
        return _timm_origin(name, spelling, choice)
    if spelling.network in own_names():
        return _own_origin(name, spelling, choice)
    file = find_weights(spelling.network, choice)
    # A file of another name may hold anybody's weights.
    published = file.name == hub_path(spelling.network).name
    return _told(name, file, file.name, is_published=published)


def _timm_origin(name: str, spelling: Spelling, choice: WeightsChoice) -> Origin:
    given = given_file(spelling.network, spelling.file_stem, choice)
    if given is not None:
        if spelling.revision:
            msg = f"--backbone {name}: {given} has no revisions; expected {spelling.network}, or no file in --weights"
            raise OptionError(msg)
        return _told(name, given, given.name, is_published=True)
    card = timm_card(spelling.timm_name)
    if not card.hub_id:
        msg = (
            f"{spelling.network}: timm names no weights on the hub. Give a file with --weights {spelling.network}=FILE, "
            f"or try the program with --weights random"
        )
        raise WeightsMissing(msg)
    file = hub_file(spelling.network, card.hub_id, spelling.revision)
    return _told(name, file, f"{card.hub_id}@{commit_of(file)}/{file.name}", is_published=True)


def _own_origin(name: str, spelling: Spelling, choice: WeightsChoice) -> Origin:
    named = dataclasses.replace(choice, folder=None)
    file = given_file(spelling.network, spelling.file_stem, named)
    if file is not None:
        return _told(name, file, file.name, is_published=False)
    return _told(name, None, profile_of(name).weights, is_published=True)


def _told(name: str, file: Path | None, words: str, *, is_published: bool) -> Origin:
    profile = profile_of(name)
    if not is_published or not profile.licence:
        return Origin(file=file, words=words)
    warning = f"{name}: its weights ({profile.weights}) have the licence {profile.licence}; read it before you pass features or results on"
    return Origin(file=file, words=words, licence=profile.licence, warning="" if profile.is_permissive else warning)


def licence_warnings(origins: Iterable[Origin]) -> list[str]:
    """Return what the user should know of licences, once each."""
    return list(dict.fromkeys(origin.warning for origin in origins if origin.warning))
