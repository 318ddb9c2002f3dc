# SPDX-License-Identifier: Apache-2.0
"""Peer: whoever can be called."""

from typing import Any, Iterable, Optional

from .calls import Answer, Call, Request
from .payload import Content


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
