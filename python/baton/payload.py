# SPDX-License-Identifier: Apache-2.0
"""Payloads: the bytes of a request, an item or a result, their type, and the descriptors that come with them."""

import fcntl
import os
from typing import Any, Iterable, List, Optional, Tuple, Type, Union

from google.protobuf.message import Message

from .errors import CallError, M, Status


OBJECT_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
MFD_NOEXEC_SEAL = 0x8  # where the kernel knows it (6.3)


def make_memfd(name: str, size: int) -> int:
    """An empty one of that size, that can be sealed."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | MFD_NOEXEC_SEAL)
    except OSError:
        fd = os.memfd_create(name, flags)
    try:
        os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _duplicate(fd: Any) -> int:
    number = fd if isinstance(fd, int) else fd.fileno()
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)


def close_fds(fds: Iterable[int]) -> None:
    """Closes each; below 0: none."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)


class View:
    """Bytes of a payload that are still the other side's memory."""

    def __init__(self, size: int) -> None:
        self.size = size

    def take(self) -> bytes:
        """A copy of them; the memory is given back. Any thread, once."""
        raise NotImplementedError

    def drop(self) -> None:
        """Gives the memory back unseen. Any thread; again, or after take(): nothing."""
        raise NotImplementedError


class _Gone(View):
    """Bytes that nobody asked for in time."""

    def take(self) -> bytes:
        raise ValueError("the bytes of this payload were given back when its call ended")

    def drop(self) -> None:
        pass


class Payload:
    """Bytes, their type, and descriptors, which it owns until they are taken or it is sent.

    `data`: bytes, whatever is like them, or a protobuf message, which also says the type. `type`: full name of the
    message; "" for raw bytes. `fds`: numbers, or objects with fileno(); they are duplicated here and stay the caller's.
    Whoever sends a payload takes its descriptors out of it. What nobody took is closed with the object.

    What came may lie in memory that is shared with the sender: it is copied when `data` is first asked for. One that was
    not asked for before the call's end is gone.
    """

    __slots__ = ("_data", "type", "_fds", "_view", "sealed")

    def __init__(self, data: Any = b"", type: str = "", fds: Iterable[Any] = ()) -> None:
        self._fds: List[int] = []
        self._view: Optional[View] = None
        self.sealed = 0  # bytes of the object that its data has become on its way out, the last of the descriptors
        if isinstance(data, Message):
            type = type or data.DESCRIPTOR.full_name
            data = data.SerializeToString()
        elif data is None:
            data = b""
        elif isinstance(data, (bytearray, memoryview)):
            data = bytes(data)
        elif not isinstance(data, bytes):
            raise TypeError(f"a payload is bytes or a protobuf message, not {data.__class__.__name__}")
        if not isinstance(type, str):
            raise TypeError("the type of a payload is the full name of a message")
        self._data: bytes = data
        self.type: str = type
        for fd in fds:
            self._fds.append(_duplicate(fd))

    @classmethod
    def received(cls, data: bytes, type: str, fds: List[int], view: Optional[View] = None) -> "Payload":
        """One that owns those descriptors, which are not duplicated, and the view, which then is its bytes."""
        payload = cls(data, type)
        payload._fds = fds
        payload._view = view
        return payload

    @property
    def data(self) -> bytes:
        """The bytes."""
        if self._view:
            self._data = self._view.take()
            self._view = None
        return self._data

    @property
    def size(self) -> int:
        """How many bytes."""
        return self._view.size if self._view else len(self._data)

    @property
    def inline_size(self) -> int:
        """How many of them came in the frame, or will."""
        return len(self._data)

    @property
    def n_fds(self) -> int:
        """How many descriptors came, taken ones included."""
        return len(self._fds)

    def seal(self) -> bool:
        """Puts the bytes into a sealed memfd, which is then its last descriptor. False: there is no memory for it."""
        data = self.data
        try:
            fd = make_memfd("baton-object", len(data))
        except OSError:
            return False
        try:
            view = memoryview(data)
            at = 0
            while at < len(data):
                at += os.pwrite(fd, view[at:], at)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, OBJECT_SEALS | fcntl.F_SEAL_SEAL)
        except OSError:
            os.close(fd)
            return False
        self._fds.append(fd)
        self._data, self.sealed = b"", len(data)
        return True

    def fileno(self, index: int = 0) -> int:
        """The descriptor at that place, which stays the payload's. IndexError: there is none, or it was taken."""
        fd = self._fds[index]
        if fd < 0:
            raise IndexError("this descriptor was taken before")
        return fd

    def take_fd(self, index: int = 0) -> int:
        """The descriptor at that place, from now on the caller's. IndexError: there is none, or it was taken."""
        fd = self.fileno(index)
        self._fds[index] = -1
        return fd

    def take_fds(self) -> List[int]:
        """All that were not taken yet, in order; from now on the caller's."""
        fds, self._fds = [fd for fd in self._fds if fd >= 0], []
        return fds

    def message(self, message_type: Type[M]) -> M:
        """The payload as a protobuf message. CallError INVALID_ARGUMENT: it is of another type, or no such message."""
        name = message_type.DESCRIPTOR.full_name
        if self.type not in ("", name):
            raise CallError(Status.INVALID_ARGUMENT, f"expected {name}, got {self.type}")
        message = message_type()
        try:
            message.ParseFromString(self.data)
        except Exception as error:  # DecodeError, and others in older libraries
            raise CallError(Status.INVALID_ARGUMENT, f"cannot be unpacked as {name}") from error
        return message

    def close(self) -> None:
        """Closes the descriptors that nobody took, and gives back memory that nobody looked at."""
        close_fds(self.take_fds())
        if self._view:
            self._view.drop()
            self._view = _Gone(self._view.size)

    def __del__(self) -> None:
        if getattr(self, "_fds", None) or getattr(self, "_view", None):
            self.close()

    def __repr__(self) -> str:
        return f"<Payload {self.type or 'bytes'}, {self.size} bytes, {len(self._fds)} descriptors>"


Content = Union[bytes, bytearray, memoryview, Message, Payload, None]


def as_payload(content: Content, type: str = "", fds: Iterable[Any] = ()) -> Payload:
    """What the sending functions take: a Payload as it is, or one made of the rest."""
    if isinstance(content, Payload):
        if type or tuple(fds):
            raise TypeError("a Payload has its type and descriptors already")
        content._fds = content.take_fds()  # without those that were taken
        return content
    return Payload(content, type, fds)


Metadata = Iterable[Tuple[str, bytes]]


def as_metadata(metadata: Any) -> List[Tuple[str, bytes]]:
    """Pairs of a key and bytes from a mapping or an iterable; text values become UTF-8."""
    pairs = metadata.items() if hasattr(metadata, "items") else metadata or ()
    return [(key, value.encode() if isinstance(value, str) else bytes(value)) for key, value in pairs]
