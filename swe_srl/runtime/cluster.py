"""Address of a Ray cluster → an executor: the machines that it is made of."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from swe_srl.errors import ClusterUnavailable, UserError
from swe_srl.fanout import Crew
from swe_srl.runtime.crew import RayCrew
from swe_srl.runtime.roster import versions

Item = TypeVar("Item")
Value = TypeVar("Value")

_CONNECT_S = 5.0


class _Joined(NamedTuple):
    """The cluster that this process is part of, and how many have joined it."""

    address: str = ""
    members: int = 0


_joined = _Joined()
_lock = threading.Lock()


class RayCluster:
    """An executor: the machines of a Ray cluster that have a processor for Ray, `workers` items at once on each."""

    is_here = False

    def __init__(self, address: str = "") -> None:
        """`address` is `host:port` of the head; the one in RAY_ADDRESS, or one that runs here, where it is empty.

        Raises UserError when ray is not installed, or the address is not of that form.
        """
        if importlib.util.find_spec("ray") is None:
            raise UserError(
                "--executor ray needs ray: pip install 'swe-srl[ray]' here and on every machine of the cluster"
            )
        self._address = address or os.environ.get("RAY_ADDRESS") or "auto"
        if self._address != "auto" and not _is_host_and_port(self._address):
            raise UserError(
                f"address {self._address!r} of the cluster is not host:port: give that of its head, as 10.0.0.1:6379, and "
                "start this command on a machine of the cluster"
            )

    def join(self) -> Any:
        """The ray module, connected: once in a process, however many join. Raises ClusterUnavailable."""
        global _joined  # noqa: PLW0603  so is ray's own connection
        with _lock:
            if _joined.members and _joined.address != self._address:
                raise ClusterUnavailable(
                    f"this process works with the cluster at {_joined.address}, and cannot join the one at {self._address} too: "
                    "give both the same address"
                )
            ray = _connect(self._address) if not _joined.members else sys.modules["ray"]
            _joined = _Joined(self._address, _joined.members + 1)
            return ray

    def leave(self) -> None:
        """What `join` began; the connection ends with the last who leaves."""
        global _joined  # noqa: PLW0603
        with _lock:
            _joined = _Joined(self._address, _joined.members - 1)
            if not _joined.members:
                sys.modules["ray"].shutdown()

    @contextmanager
    def crew(
        self, work: Callable[[Item], Value], *, workers: int, near: Callable[[Item], object] | None = None
    ) -> Iterator[Crew[Item, Value]]:
        """A crew for `work`, which must be picklable. It connects to the cluster when the first item is given.

        Raises, when items are given or waited for, ClusterUnavailable: the cluster does not answer, is of another
        version, or has no machine left.
        """
        crew = RayCrew(self.join, self.leave, work, workers=max(1, workers), near=near or id, versions=versions())
        try:
            yield crew
        finally:
            crew.close()


def _is_host_and_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and "/" not in host and port.isdigit()


def _connect(address: str) -> Any:
    """The ray module, connected. Raises ClusterUnavailable."""
    advice = "is `ray start --head` running there, and is this machine part of the cluster (`ray status`)?"
    if address != "auto":
        # Ray itself tries for more than five minutes to reach a port of this machine at which nobody listens.
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
        except OSError as error:
            raise ClusterUnavailable(
                f"no Ray cluster answers at {address}: {error.strerror or error}: {advice}"
            ) from error
    import logging

    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise ClusterUnavailable(
            f"the cluster at {address} cannot be joined: {said}: have the same Ray and Python on all machines, and start this command on one of them"
        ) from error
    except (ConnectionError, ValueError, SystemExit) as error:
        if "RAY_AUTH_MODE" not in os.environ:
            advice += " If it asks for a token, as Ray does from 2.59 on where one is kept: export RAY_AUTH_MODE=token"
        raise ClusterUnavailable(f"no Ray cluster answers at {address}: {advice}") from error
    return ray
