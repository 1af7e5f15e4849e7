"""Options that several commands take: declared once, with one section of permafeat.toml and one set of variables for all."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args

from features_cache.console import ENVIRONMENT, share_section

Command = Callable[..., None]


def takes(parameter: str, options: Callable[..., Any], *, like: str) -> Callable[[Command], Command]:
    """Let a command take another function's options.

    Parameters
    ----------
    parameter : str
        The command's parameter that gets what the function returns; on the command line the options stand in its place.
    options : callable
        Its parameters are the options, declared as those of a command.
    like : str
        The command to whom the options belong first of all: what its section of permafeat.toml and its environment variables
        say holds for the others too, unless theirs say otherwise.

    Returns
    -------
    callable
        A decorator; it goes below ``app.command``, which reads the signature that it leaves.
    """

    def decorate(command: Command) -> Command:
        name = command.__name__.replace("_", "-")
        shared = inspect.signature(options, eval_str=True).parameters
        own = inspect.signature(command, eval_str=True).parameters
        share_section(name, like, shared)
        parameters: list[inspect.Parameter] = []
        for each in own.values():
            found = [_also_from(like, name, option) for option in shared.values()] if each.name == parameter else [each]
            # Given by name, always: options with and without defaults may then stand in any order.
            parameters += [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in found]

        @functools.wraps(command)
        def run(**values: Any) -> None:  # noqa: ANN401 - whatever the options hold
            taken = options(**{option: values.pop(option) for option in shared})
            command(**values, **{parameter: taken})

        vars(run)["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _also_from(like: str, command: str, option: inspect.Parameter) -> inspect.Parameter:
    """Let an option read the environment variable of the command that it belongs to, after the one of its own."""
    kind, info = get_args(option.annotation)
    if command == like:
        return option
    known_as = [f"{ENVIRONMENT}_{name}_{option.name}".upper().replace("-", "_") for name in (command, like)]
    info = copy.copy(info)
    info.envvar, info.show_envvar = known_as, False
    return option.replace(annotation=Annotated[kind, info])
