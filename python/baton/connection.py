# SPDX-License-Identifier: Apache-2.0
"""Peer: whoever can be called, and what it says of itself."""

from typing import Any, Iterable, List, NamedTuple, Optional

from . import baton_pb2 as pb
from .calls import Answer, Call, Request
from .payload import Content

MAX_SHARED = 64 << 20


class MethodInfo(NamedTuple):
    """A method that a peer tells of. What follows the name holds only if it is `described'; a type is the full name of
    a message, "": raw bytes. `takes`: it takes items of the caller's; `sends`: it sends items."""

    name: str
    described: bool
    request: str
    response: str
    takes: bool
    sends: bool


class Methods(NamedTuple):
    """What a peer can be called with. `others`: it takes methods that are not listed, too."""

    methods: List[MethodInfo]
    others: bool


class Peer:
    """Somebody whose methods can be called. Any thread.

    `content`: bytes, a protobuf message, or a Payload (whose descriptors are consumed); `type` and `fds` as in Payload.
    `metadata`: pairs of text and bytes, or a mapping. `timeout`: seconds from now to the deadline of the call, which
    both sides keep; None: none. `parent`: the call that this one is made for: its deadline holds here too, and when
    nobody waits for it any more this call is cancelled. ValueError, TypeError: what cannot be sent by anybody.
    """

    def request(self, method: str, content: Content = b"", type: str = "", fds: Iterable[Any] = (), metadata: Any = (),
                timeout: Optional[float] = None, sends: bool = False, takes: bool = False,
                parent: Optional[Call] = None) -> Request:
        """Starts a call and returns at once. `sends`: items of ours follow, until Request.end(). `takes`: we take items
        of the other side's; without it one that comes ends the call, UNIMPLEMENTED."""
        raise NotImplementedError

    def call(self, method: str, content: Content = b"", type: str = "", fds: Iterable[Any] = (), metadata: Any = (),
             timeout: Optional[float] = None, parent: Optional[Call] = None) -> Answer:
        """Calls, waits, and returns the answer. CallError: it is another than OK. BlockingIOError: in the thread of the
        loop nobody may wait. Interrupted (KeyboardInterrupt), it cancels the call."""
        with self.request(method, content, type, fds, metadata, timeout, parent=parent) as request:
            return request.result()

    def stream(self, method: str, content: Content = b"", type: str = "", fds: Iterable[Any] = (), metadata: Any = (),
               timeout: Optional[float] = None, sends: bool = True, parent: Optional[Call] = None) -> Request:
        """A call with streams: send() and end() on what is returned, iterate over it, then result(). As a context
        manager it cancels what is not done at the end of the block."""
        return self.request(method, content, type, fds, metadata, timeout, sends, True, parent)

    def ping(self, timeout: Optional[float] = None) -> None:
        """Returns when the peer has answered. CallError."""
        self.call("baton.Runner/Ping", pb.Ping(nonce=1), timeout=timeout)

    def is_serving(self, service: str = "", timeout: Optional[float] = None) -> bool:
        """Whether that service of the peer's, or the whole, says that it serves. CallError NOT_FOUND: no such service;
        UNIMPLEMENTED: it does not tell."""
        answer = self.call("baton.Health/Check", pb.HealthRequest(service=service), timeout=timeout)
        return bool(answer.message(pb.HealthResponse).status == pb.HealthResponse.SERVING)

    def list_methods(self, timeout: Optional[float] = None) -> Methods:
        """What the peer can be called with, as far as it tells. CallError UNIMPLEMENTED: it does not."""
        answer = self.call("baton.Reflection/List", pb.ReflectionRequest(), timeout=timeout)
        response = answer.message(pb.ReflectionResponse)
        return Methods([MethodInfo(one.name, one.described, one.request_type, one.response_type, one.client_streams,
                                   one.server_streams) for one in response.methods], response.others)
