"""A process that speaks with Ray, so that none of Ray's output, threads and signal handlers comes into ours.

It is told of rounds of units by a connection, and tells of units as actors finish them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from features_cache.errors import ClusterLost, OptionError, PermafeatError
from features_cache.extras import load_extra
from featurize.cluster.actor import Actor
from featurize.cluster.share import Share, Told

LOCAL = "local"
_UNITS_A_TASK = 8
_TASKS_AN_ACTOR = 4
# What travels is numbers of units; Ray would set a third of the memory aside for it.
_STORE_BYTES = 80 * 2**20
_ANSWERS_WITHIN_S = 20.0
_ENDS_WITHIN_S, _WRITES_WITHIN_S = 10.0, 0.5
_LOOKED_AT_EVERY_S = 10.0
_UNANSWERED_AT_MOST = 3
# Of the actors that were given one task, before the task is to blame, as an image that crashes its decoder is.
_LOSSES_AT_MOST = 9
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


class Round(NamedTuple):
    """Units of a split that are computed by one pool of actors.

    Parameters
    ----------
    share : Share
    units : sequence of int
        Their numbers.
    n_actors : int or None
        As many as there is room for, unless given.
    look_at_first : bool
        Whether a single actor computes, and looks at the features of the first unit before anything is kept.
    """

    share: Share
    units: Sequence[int]
    n_actors: int | None
    look_at_first: bool


def main(n_handle: int, address: str, named: str) -> None:
    """Connect to a cluster, or start one of this machine alone, say so, and compute rounds until the other side hangs up.

    Parameters
    ----------
    n_handle : int
        File descriptor of the connection. Standard input is watched too: it ends with the process that began this one, however
        that ends.
    address : str
        Of the cluster; ``local`` starts one.
    named : str
        What gave the address, for messages.
    """
    folder = None
    if address == LOCAL:
        # Ray's own, in /tmp/ray, would stay; it begins there because names of sockets are short.
        folder = tempfile.mkdtemp(prefix="permafeat-ray-", dir=os.environ.get("RAY_TMPDIR", "/tmp"))  # noqa: S108
    threading.Thread(target=_end_with_the_parent, args=(folder,), daemon=True).start()
    connection = Connection(n_handle)
    try:
        ray = _connected(address, named, folder)
        connection.send(None)
        while True:
            wanted: Round = connection.recv()
            for told in _computed(ray, wanted):
                connection.send(told)
            connection.send(None)
    except EOFError:
        pass
    except PermafeatError as error:
        connection.send([Told.of(error)])
    except BaseException as error:  # noqa: BLE001 - whatever it is, the other side tells it
        connection.send(_explained(error) or traceback.format_exc())
    threading.Event().wait()  # until the other side hangs up: it has to read what was sent


def _explained(error: BaseException) -> list[Told]:
    """Say in our words what Ray says in many, if it is known."""
    first = _first_line(error)
    if "No module named 'featurize'" in str(error):
        msg = "the cluster's nodes have no permafeat: install there what is installed here"
        return [Told.of(OptionError(msg))]
    if "ray" in sys.modules and isinstance(error, sys.modules["ray"].exceptions.RayActorError):
        msg = (
            f"actors died {_LOSSES_AT_MOST + 1} times over the same images ({first}); what was committed is safe. Does one of them crash what reads "
            f"it (`cli check` reads them all), or have the nodes too little memory? Type the same command again to go on"
        )
        return [Told.of(ClusterLost(msg))]
    return []


def _end_with_the_parent(folder: str | None) -> None:
    sys.stdin.read()
    try:
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()
    finally:  # in the middle of its import it cannot
        if folder is not None:
            _remove(folder)
        os._exit(0)


def _remove(folder: str) -> None:
    # Ray's processes write there while they end.
    until = time.monotonic() + _ENDS_WITHIN_S
    while time.monotonic() < until:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_WRITES_WITHIN_S)
        if not os.path.exists(folder):  # noqa: PTH110 - a name, as Ray takes it
            return


def _connected(address: str, named: str, folder: str | None) -> Any:  # noqa: ANN401 - a module without types
    settings = _QUIET if address != LOCAL or "RAY_AUTH_MODE" in os.environ else _QUIET | _own_token()
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    _require_answer(address, named)
    ray = load_extra("ray", "ray", "--engine ray")
    load_extra("ray.data", "ray", "--engine ray")
    of_its_own = (
        {"include_dashboard": False, "object_store_memory": _STORE_BYTES, "_temp_dir": folder} if folder else {}
    )
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **of_its_own)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        msg = (
            f"{named}: Ray refuses ({_first_line(error)}); a cluster of another version of Ray or Python, or one that asks for a "
            f"token? Then set RAY_AUTH_MODE=token, and the token as on its nodes"
        )
        raise OptionError(msg) from error
    if not folder:
        head = ray.get_runtime_context().gcs_address
        threading.Thread(target=_end_without_the_head, args=(head,), daemon=True).start()
    return ray


def _end_without_the_head(address: str) -> None:
    """Watch the head node: Ray waits without end for one that went away without a word, as when its power fails."""
    n_unanswered = 0
    while n_unanswered < _UNANSWERED_AT_MOST:
        time.sleep(_LOOKED_AT_EVERY_S)
        try:
            _call(address)
            n_unanswered = 0
        except OSError:
            n_unanswered += 1
    sys.stderr.write(f"the head node {address} no longer answers\n")
    os._exit(1)


def _own_token() -> dict[str, str]:
    """Make a secret for a Ray of this run alone; Ray itself would leave one in the user's home folder."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _require_answer(address: str, named: str) -> None:
    # Ray tries for minutes, and then ends the process.
    expected = "expected HOST:PORT of a head node, as `ray start --head` tells it"
    if "://" in address:
        msg = f"{named}: a URL; {expected}, with the command typed on a machine of the cluster"
        raise OptionError(msg)
    _, colon, port = address.rpartition(":")
    if address in {LOCAL, "auto"}:
        return
    if not colon or not port.isdecimal():
        msg = f"{named}: no address of a cluster; {expected}"
        raise OptionError(msg)
    try:
        _call(address)
    except (OSError, OverflowError) as error:
        msg = f"{named}: no Ray cluster answers ({error}); {expected}"
        raise OptionError(msg) from error


def _call(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS_WITHIN_S).close()


def _computed(ray: Any, wanted: Round) -> Iterator[list[Told]]:  # noqa: ANN401
    """Yield what actors tell, task by task."""
    share = wanted.share
    need = {"num_gpus": 1} if share.device == "cuda" else {"num_cpus": share.n_threads}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    n_actors = _n_actors(nodes, need, wanted)
    # Ray's own failures are told by its log, which lies in its folder, and by what is raised here.
    ray.data.DataContext.get_current().enable_progress_bars = False
    n_tasks = max(-(-len(wanted.units) // _UNITS_A_TASK), min(len(wanted.units), _TASKS_AN_ACTOR * n_actors))
    units = ray.data.from_items([{"unit": unit} for unit in wanted.units], override_num_blocks=n_tasks)
    # Ray Data starts lost actors anew and gives their tasks to them again, and frees idle actors at the end, so that a
    # lost node's actor finds room on another. One task at a time: what is queued behind a lost actor waits for it.
    told = units.map_batches(
        Actor,
        fn_constructor_args=(share,),
        fn_constructor_kwargs={"look_at_first": wanted.look_at_first},
        batch_size=_UNITS_A_TASK,
        compute=ray.data.ActorPoolStrategy(size=n_actors, max_tasks_in_flight_per_actor=1),
        max_task_retries=_LOSSES_AT_MOST,
        **need,
    )
    for batch in told.iter_batches(batch_size=None, prefetch_batches=0):
        yield [
            Told(int(unit), str(error), str(message))
            for unit, error, message in zip(*(batch[name] for name in Told._fields), strict=True)
        ]


def _n_actors(nodes: Sequence[dict[str, float]], need: dict[str, int], wanted: Round) -> int:
    """Say how many actors there are to be; what there is no room for would be waited for, without a word."""
    kind, each = ("GPU", 1) if "num_gpus" in need else ("CPU", need["num_cpus"])
    found = sum(int(node.get(kind, 0)) for node in nodes)
    room = sum(int(node.get(kind, 0)) // each for node in nodes)
    asked = wanted.n_actors or max(room, 1)
    n_actors = min(1 if wanted.look_at_first else asked, len(wanted.units))
    if asked > room:  # in the first round too, which begins nothing that the second refuses
        threads = f" of {each} threads" if each > 1 else ""
        more = (
            "start more nodes"
            if each == 1
            else "set OMP_NUM_THREADS to fewer before a run is begun, or start more nodes"
        )
        msg = (
            f"--actors {wanted.n_actors or 'auto'}{threads}: the cluster has {found} {kind}s, room for {room}; "
            f"type --actors {room}, or {more}"
            if room
            else f"--actors{threads}: the cluster has {found} {kind}s, room for none; {more}"
        )
        raise OptionError(msg)
    return n_actors


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
