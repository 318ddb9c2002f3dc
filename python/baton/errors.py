# SPDX-License-Identifier: Apache-2.0
"""Statuses of calls, and what is raised."""

import enum
from typing import Any, Iterable, List, NamedTuple, Optional, Tuple, Type, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


class Status(enum.IntEnum):
    """gRPC's codes, by number and meaning (docs/protocol.md, "Status codes")."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @classmethod
    def from_wire(cls, number: int) -> "Status":
        """The status of that number; above 16: UNKNOWN."""
        return cls(number) if number <= cls.UNAUTHENTICATED else cls.UNKNOWN


class Detail(NamedTuple):
    """A typed detail of a status: the full name of a protobuf message, and its bytes."""

    type: str
    value: bytes


class Error(Exception):
    """What this package raises, but for wrong arguments (TypeError, ValueError) and the system's (OSError)."""


class CallError(Error):
    """A call that did not end with OK. Raised in a handler it becomes the answer.

    `details` may hold protobuf messages and Details; it reads as Details. `metadata` is what the answer brought.
    """

    def __init__(self, status: int, message: str = "", details: Iterable[Any] = (),
                 metadata: Iterable[Tuple[str, bytes]] = ()) -> None:
        self.status = Status.UNKNOWN if status == Status.OK else Status.from_wire(status)
        super().__init__(self.status, message)
        self.message = message
        self.details: List[Detail] = [
            Detail(detail.DESCRIPTOR.full_name, detail.SerializeToString()) if isinstance(detail, Message)
            else Detail(*detail) for detail in details]
        self.metadata = list(metadata)

    def __str__(self) -> str:
        return f"{self.status.name}: {self.message}" if self.message else self.status.name

    def detail(self, message_type: Type[M]) -> Optional[M]:
        """The first detail of that type, unpacked; None if there is none, or if it cannot be unpacked."""
        for detail in self.details:
            if detail.type == message_type.DESCRIPTOR.full_name:
                message = message_type()
                try:
                    message.ParseFromString(detail.value)
                except Exception:  # DecodeError, and others in older libraries
                    return None
                return message
        return None


class ConnectionEnded(Error):
    """The connection is over: what it was asked for cannot be had any more."""
