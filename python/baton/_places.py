# SPDX-License-Identifier: Apache-2.0
"""Where sockets are, and connecting to them, however long their paths."""

import os
import socket
from typing import List, Optional

from .errors import Error

SOCKET = "BATON_SOCKET"
UDS_PATH = "--uds-path"
SUN_PATH_MAX = 107


def control_path() -> str:
    """The control socket that commands use, too: $BATON_SOCKET, else `control' in this user's runtime directory."""
    path = os.environ.get(SOCKET)
    if path:
        return path
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() == 0:
        directory = "/run/baton"
    elif base.startswith("/"):
        directory = base.split(":")[0] + "/baton"
    else:
        directory = f"/tmp/baton-{os.geteuid()}"
    return directory + "/control"


def connect(path: str, timeout: Optional[float] = None) -> socket.socket:
    """A connection to the unix socket there. OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = -1
    try:
        connection.settimeout(timeout)
        if len(os.fsencode(path)) > SUN_PATH_MAX:
            directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            path = f"/proc/self/fd/{directory}/{os.path.basename(path)}"
        connection.connect(path)
        connection.settimeout(None)
        return connection
    except BaseException:
        connection.close()
        raise
    finally:
        if directory >= 0:
            os.close(directory)


def uds_path_argument(arguments: List[str]) -> Optional[str]:
    """Takes `--uds-path PATH' out of a program's arguments (sys.argv), up to "--": the path of the bootstrap socket, which
    a supervisor may put there, for Runner(bootstrap=...). None: it is not there. Error: it lacks its path."""
    found: Optional[str] = None
    at = 1
    while at < len(arguments) and arguments[at] != "--":
        name, equals, value = arguments[at].partition("=")
        if name != UDS_PATH:
            at += 1
            continue
        if not equals:
            value = "".join(arguments[at + 1:at + 2])
        if not value:
            raise Error(f"{UDS_PATH} needs a path")
        found = value
        del arguments[at:at + (1 if equals else 2)]
    return found
