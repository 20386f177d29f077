"""The environment variables of a process of a training."""

from __future__ import annotations

import os
import socket
import time

#: The default seconds between signs of life, and of the silence of a process that is gone.
HEARTBEATS = {"PS_HEARTBEAT_INTERVAL": "2", "PS_HEARTBEAT_TIMEOUT": "20"}
ROLES = ("scheduler", "server", "worker")


def address_toward(host: str) -> str:
    """Return the address of this machine on the route to another one. Nothing is sent.

    Raises:
        OSError: the name is unknown, or there is no route.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((host, 9))
        address: str = udp.getsockname()[0]
        return address


def prepare() -> str:
    """Check the environment variables, set those that have a default, and return the role."""
    role = os.environ.get("DMLC_ROLE")
    if role not in ROLES:
        got = "no such variable; `cvops launch` sets it" if role is None else repr(role)
        raise ValueError(f"DMLC_ROLE: expected one of {', '.join(ROLES)}, got {got}")
    root = os.environ.get("DMLC_PS_ROOT_URI")
    if not root:
        raise ValueError(f"DMLC_PS_ROOT_URI: expected the scheduler's address, got {root!r}")
    for name, default in HEARTBEATS.items():
        os.environ.setdefault(name, default)
    for name in ("DMLC_NUM_WORKER", "DMLC_NUM_SERVER"):
        _number(name, 1, 10**4)
    _number("DMLC_PS_ROOT_PORT", 1, 2**16 - 1)
    interval = _number("PS_HEARTBEAT_INTERVAL", 1, 10**4)
    _number("PS_HEARTBEAT_TIMEOUT", 2 * interval, 10**6)
    # MXNet's scheduler listens at an address, not at a name.
    os.environ["DMLC_PS_ROOT_URI"] = address = _resolve(root)
    if not (os.environ.get("DMLC_NODE_HOST") or os.environ.get("DMLC_INTERFACE")):
        try:
            os.environ["DMLC_NODE_HOST"] = address_toward(address)
        except OSError as error:
            raise ValueError(
                f"DMLC_PS_ROOT_URI: expected an address with a route to it, got {root!r}: "
                f"{error.strerror}"
            ) from error
    os.environ.pop("DMLC_RANK", None)  # MXNet sets it; with an inherited one it does not join
    return role


def _resolve(name: str) -> str:
    """Return the address of a host, whose name may become known after this process starts."""
    limit = time.monotonic() + join_timeout()
    while True:
        try:
            return socket.gethostbyname(name)
        except (OSError, UnicodeError) as error:
            if time.monotonic() > limit:
                raise ValueError(
                    f"DMLC_PS_ROOT_URI: expected the scheduler's address, got {name!r}: {error}"
                ) from error
        time.sleep(1)


def _number(name: str, least: int, most: int) -> int:
    text = os.environ.get(name)
    if text is None or not text.isdecimal() or not least <= int(text) <= most:
        raise ValueError(f"{name}: expected a number from {least} to {most}, got {text!r}")
    return int(text)


def join_timeout() -> int:
    """Return the seconds after which a process ends that waits for others."""
    os.environ.setdefault("CVOPS_JOIN_TIMEOUT", "600")
    return _number("CVOPS_JOIN_TIMEOUT", 1, 10**6)


def not_joined(seconds: int) -> str:
    """Return the message for processes that have not joined."""
    servers, workers = (os.environ[f"DMLC_NUM_{kind}"] for kind in ("SERVER", "WORKER"))
    root = f"{os.environ['DMLC_PS_ROOT_URI']}:{os.environ['DMLC_PS_ROOT_PORT']}"
    return (
        f"expected a scheduler at {root}, {servers} server(s) and {workers} worker(s), "
        f"got fewer within {seconds} s"
    )
