# SPDX-License-Identifier: Apache-2.0
"""Frames as bytes (docs/protocol.md, "Frame" and "Envelope"): limits, texts that may be sent, and the check of an
Envelope that came. Who sends what when is not known here."""

import struct
from typing import Any, Dict, List, NamedTuple, Optional

from . import baton_pb2 as pb
from .errors import CallError, Status
from .payload import Payload, View, close_fds

HEADER = struct.Struct(">II")
LENGTH = struct.Struct(">I")
PROTOCOL = 1
FRAME_MIN = 65536
ENVELOPE_MAX = 2 << 20
METHOD_MAX = 255
RESERVED = "baton."  # how the names of built-in methods begin
MESSAGE_MAX = 1024
CREDIT_SIZE = 6  # what fd_credit adds to an Envelope
LANE_ID_SIZE = 11  # an id in `fds', at most
HEAD_ROOM = 64  # what is known of an Envelope only when it is written: id, time left, credit, a block or an object
KINDS = frozenset(pb.Kind.values()) - {pb.KIND_NONE}


class PeerFault(Exception):
    """The other side broke the protocol, or a limit was met: the connection ends with this status."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Limits(NamedTuple):
    """What a side accepts, and what it holds for the other side: see `Hello' and `Limits' in the document. Sizes in bytes.

    `max_frame`: of a frame, 64 KiB to 4 GiB - 1. `max_calls`: open at once. `fd_credit`: descriptors sent and not yet
    listed. `stream_window`: of one stream, on their way. `max_object`: of a sealed object, and of all that are held at a
    time; 0: none is taken. `max_memory`: of the windows of all open streams. `max_held_fds`: descriptors that open calls
    hold. `max_waiting`: calls that wait to be sent, `max_waiting_bytes`: of these; more fail. `max_unsent`: on their way
    before what is new must wait.
    """

    max_frame: int = 8 << 20
    max_calls: int = 1024
    fd_credit: int = 64
    stream_window: int = 256 * 1024
    max_object: int = 4 << 30
    max_memory: int = 256 << 20
    max_held_fds: int = 1024
    max_waiting: int = 4096
    max_waiting_bytes: int = 64 << 20
    max_unsent: int = 1 << 20

    def check(self) -> "Limits":
        """ValueError: such limits cannot be."""
        if not FRAME_MIN <= self.max_frame < 1 << 32:
            raise ValueError("max_frame is 64 KiB to 4 GiB - 1")
        if self.max_object < 0 or min(self._replace(max_object=1)) < 1:
            raise ValueError("a limit is at least 1, of objects 0")
        return self

    def stated(self) -> Dict[str, int]:
        """Those of Hello."""
        return {name: getattr(self, name) for name in
                ("max_frame", "max_calls", "fd_credit", "stream_window", "max_object")}


class Frame:
    """One that came. Its descriptors and its block are its own until payload() takes them."""

    __slots__ = ("envelope", "bytes", "fds", "absent", "lost", "view", "fault")

    def __init__(self, envelope: Any, data: bytes) -> None:
        self.envelope = envelope
        self.bytes = data
        self.fds: List[int] = []
        self.absent = False  # a descriptor that it lists was never sent
        self.lost = False  # one of them was lost to our own limit
        self.view: Optional[View] = None  # the payload, if it came by block or as an object
        self.fault: Optional[CallError] = None  # what is wrong with that

    def payload(self) -> Payload:
        """What it brought."""
        payload = Payload.received(self.bytes, self.envelope.type, self.fds, self.view)
        self.fds, self.view = [], None
        return payload

    def close(self) -> None:
        """What nobody took."""
        close_fds(self.fds)
        self.fds = []
        if self.view:
            self.view.drop()
            self.view = None


def parse_envelope(head: bytes) -> Any:
    """The Envelope. PeerFault: it is none, or one that may not be."""
    envelope = pb.Envelope()
    try:
        envelope.ParseFromString(head)
    except Exception:  # DecodeError; others for text in older libraries
        raise PeerFault(Status.INVALID_ARGUMENT, "an Envelope that cannot be parsed") from None
    if envelope.kind not in KINDS:
        raise PeerFault(Status.INVALID_ARGUMENT, f"a frame of kind {envelope.kind}")
    if has_nul(envelope):
        raise PeerFault(Status.INVALID_ARGUMENT, "text with NUL")
    return envelope


def has_nul(message: Any) -> bool:
    """Whether any text in it has NUL, which the protocol refuses and protobuf does not."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            if "\0" in value if isinstance(value, str) else any("\0" in text for text in value):
                return True
        elif field.type == field.TYPE_MESSAGE:
            if any(map(has_nul, [value] if hasattr(value, "ListFields") else value)):
                return True
    return False


def check_text(text: str) -> str:
    """ValueError: it cannot be text of the protocol."""
    if "\0" in text:
        raise ValueError("text with NUL")
    text.encode()  # UnicodeEncodeError is a ValueError
    return text


def is_method_name(text: str) -> bool:
    """Whether a method may be called so. ValueError: it is no text."""
    return 1 <= len(check_text(text).encode()) <= METHOD_MAX


def clean_text(text: str, limit: int) -> str:
    """Text that may be sent: cut, without NUL and surrogates."""
    return text.replace("\0", "?").encode(errors="replace")[:limit].decode(errors="ignore")


def one_line(text: str) -> str:
    """A message for people: clean, without line breaks, cut."""
    return clean_text(" ".join(str(text).split("\n")), MESSAGE_MAX)
