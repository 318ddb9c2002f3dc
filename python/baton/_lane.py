# SPDX-License-Identifier: Apache-2.0
"""The lane: messages of eight bytes, each with one descriptor (docs/protocol.md, "Lane")."""

import array
import errno
import os
import socket
import struct
from typing import Dict, List, Optional, Tuple

from ._wire import PeerFault
from .errors import Status
from .payload import close_fds

MESSAGE = struct.Struct("<Q")
FIRST_N = 3
LAST_N = (1 << 31) - 1
N_CHANNELS = 3
LOST = -1
ROOM = socket.CMSG_SPACE(4 * 4)


def receive(lane: socket.socket) -> Tuple[Optional[int], int]:
    """One message: its id and the descriptor (LOST: to our own limit). (None, 0): the end. BlockingIOError: nothing."""
    while True:
        try:
            data, control, flags, _ = lane.recvmsg(MESSAGE.size, ROOM, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
            break
        except (ConnectionResetError, BrokenPipeError):
            continue  # comes once, before what the peer had sent
    fds = array.array("i")
    other = False
    for level, kind, value in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(value[:len(value) - len(value) % fds.itemsize])
        else:
            other = True
    if not data and not fds:
        return None, 0
    truncated = bool(flags & socket.MSG_CTRUNC)
    if len(data) != MESSAGE.size or other or len(fds) != (0 if truncated else 1):
        close_fds(fds)
        raise PeerFault(Status.INVALID_ARGUMENT, "not a lane message: it has 8 bytes and one descriptor")
    return MESSAGE.unpack(data)[0], fds[0] if fds else LOST


def send(lane: socket.socket, lane_id: int, fd: int) -> bool:
    """One message; the descriptor stays the caller's. False: the kernel's limit for descriptors, try again later.
    BlockingIOError: try again when the lane is writable. BrokenPipeError: nobody is there."""
    try:
        lane.sendmsg([MESSAGE.pack(lane_id)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))],
                     socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError as error:
        if error.errno == errno.ETOOMANYREFS:
            return False
        if error.errno == errno.ECONNRESET:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
        raise
    return True


def as_channel(fd: int) -> socket.socket:
    """The descriptor, consumed, as a channel, non-blocking. PeerFault: it is none."""
    if fd == LOST:
        raise PeerFault(Status.RESOURCE_EXHAUSTED, "a channel was lost to the receiver's descriptor limit")
    try:
        channel = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise PeerFault(Status.INVALID_ARGUMENT, "a channel that is no socket") from None
    try:
        channel.getpeername()
        good = channel.family == socket.AF_UNIX and channel.type == socket.SOCK_STREAM
    except OSError:
        good = False
    if not good:
        channel.close()
        raise PeerFault(Status.INVALID_ARGUMENT, "a channel that is no connected unix stream socket")
    channel.setblocking(False)
    return channel


class Arrivals:
    """Descriptors of one epoch that no frame has listed yet, and the rules for the ids that may come."""

    def __init__(self, side: int, credit: int) -> None:
        self._side = side
        self._credit = credit
        self._waiting: Dict[int, int] = {}

    def arrived(self, lane_id: int, fd: int) -> None:
        """Keeps the descriptor, which is consumed. PeerFault: such an id may not come."""
        number = lane_id & 0xffffffff
        fault = None
        if number & 1 == self._side:
            fault = Status.INVALID_ARGUMENT, "a lane id of the receiver's side"
        elif number >> 1 < FIRST_N:
            fault = Status.INVALID_ARGUMENT, "a lane id that no descriptor has"
        elif lane_id in self._waiting:
            fault = Status.INVALID_ARGUMENT, "a lane id that is still unclaimed"
        elif self._credit == 0:
            fault = Status.RESOURCE_EXHAUSTED, "more descriptors than there was credit for"
        if fault:
            close_fds([fd])
            raise PeerFault(*fault)
        self._credit -= 1
        self._waiting[lane_id] = fd

    def claim(self, lane_ids: List[int]) -> Tuple[List[int], bool, bool, int]:
        """What those ids brought, whether one is absent, whether one was lost, and the credit to be returned."""
        fds: List[int] = []
        absent = lost = False
        credit = 0
        for lane_id in lane_ids:
            fd = self._waiting.pop(lane_id, None)
            if fd is None:
                absent = True
                continue
            credit += 1
            if fd == LOST:
                lost = True
            else:
                fds.append(fd)
        return fds, absent, lost, credit

    def returned(self, credit: int) -> None:
        """The other side may send so many more from now on."""
        self._credit += credit

    def close(self) -> None:
        close_fds(self._waiting.values())
        self._waiting.clear()
