# SPDX-License-Identifier: Apache-2.0
"""Shared memory with one peer, from Hello to the end of the epoch: the calls of baton.Arena, both ways.

A payload of raw bytes travels by block from SHARE_FROM on; a typed message never does, since whoever gets it parses it.
An arena is used once the peer has answered for it: until then, and where there is no room, bytes travel in the frame,
and nobody need know. A block that came is the peer's memory until somebody asks for the payload's bytes.
"""

import time
from typing import TYPE_CHECKING, Any, Optional, Set, Tuple

from . import arena_pb2 as messages, baton_pb2 as pb
from ._arena import Arena, Pool, Reader
from .calls import Call, Request
from .errors import CallError, Status
from .payload import Payload, View

if TYPE_CHECKING:
    from ._link import Link

FEATURE = "arena"
SERVICE = "baton.Arena/"
SHARE_FROM = 256 * 1024  # bytes; below it a copy costs less than giving a block back, measured
RETURNS_AT_ONCE = 256
RETURNS_OPEN = 4


class Share:
    """Of one Link, in the thread of its loop."""

    def __init__(self, link: Any, max_bytes: int) -> None:
        self._link = link
        self._pool = Pool(max_bytes, self._announce)
        self._reader = Reader(max_bytes, self._in_loop)
        self._requests: Set[Request] = set()
        self._returning = 0  # Release calls without an answer
        self._closed = False

    def close(self) -> None:
        """Arenas and blocks are all over; what was asked for and not sent is not sent any more."""
        self._closed = True
        for request in list(self._requests):
            self._link.cancel(request, CallError(Status.CANCELLED, "the epoch is over"))
        self._pool.close()
        self._reader.close()

    def _in_loop(self, function: Any, *arguments: Any) -> None:
        def give_back() -> None:
            function(*arguments)
            if not self._closed:
                self._link.pump_soon()
        self._link.loop.call_soon(give_back)

    def _call(self, method: str, message: Any, fds: Tuple[int, ...] = ()) -> Request:
        request: Request = self._link.request(SERVICE + method, Payload(message, fds=fds))
        self._requests.add(request)
        request.on_done(lambda: self._requests.discard(request))
        return request

    # --- ours ---

    def put(self, data: bytes) -> Any:
        """The block in which those bytes travel; None: they travel in the frame."""
        if len(data) < SHARE_FROM:
            return None
        span = self._pool.put(data)
        return pb.Block(arena=span[0], offset=span[1], length=span[2]) if span else None

    def _announce(self, arena: Arena) -> None:
        request = self._call("Announce", messages.ArenaAnnounce(id=arena.number, size=arena.size), (arena.fd,))

        def announced() -> None:
            if self._closed:
                return
            if request.succeeded:
                arena.ready = True
                arena.idle_since = time.monotonic()
                self._watch_idle()
            else:
                self._pool.refused(arena)
        request.on_done(announced)

    def _watch_idle(self) -> None:
        """What nobody has used for some seconds is retired."""
        when = self._pool.idle()
        if when is not None and not self._closed:
            self._link.arm("share", max(0.0, when - time.monotonic()), self._retire_idle)

    def _retire_idle(self) -> None:
        for number in self._pool.retire(time.monotonic()):
            self._call("Retire", messages.ArenaRetire(id=number))
        self._watch_idle()

    # --- the peer's ---

    def claim(self, envelope: Any, bare: bool) -> Tuple[Optional[View], Optional[CallError]]:
        """What the blocks of a frame are: its payload, or what is wrong with them. Those beside a payload are for typed
        fields; nobody here knows such, so they go back at once."""
        is_payload = bare and len(envelope.blocks) == 1 and not envelope.type
        fault: Optional[CallError] = None
        if bare and not is_payload:
            fault = CallError(Status.INVALID_ARGUMENT, "a block as a payload comes alone, and has no type")
        view: Optional[View] = None
        for block in envelope.blocks:
            try:
                view = self._reader.claim(block.arena, block.offset, block.length)
            except CallError as error:
                fault = error
                continue
            if not is_payload:
                view.drop()
        return (view if is_payload and not fault else None), fault

    def give_back(self) -> None:
        """Blocks that nobody looks at any more."""
        while self._returning < RETURNS_OPEN:
            spans = self._reader.take_returns(RETURNS_AT_ONCE)
            if not spans:
                return
            self._returning += 1
            blocks = [pb.Block(arena=arena, offset=offset, length=length) for arena, offset, length in spans]
            self._call("Release", messages.ArenaRelease(blocks=blocks)).on_done(self._given_back)

    def _given_back(self) -> None:
        self._returning -= 1
        if not self._closed:
            self._link.pump_soon()

    def serve(self, call: Call) -> bool:
        """Whether it is a call of the peer's to us; then it has been ended."""
        if not call.method.startswith(SERVICE):
            return False
        try:
            if call.method == SERVICE + "Announce":
                message = call.message(messages.ArenaAnnounce)
                self._announced(call, message)
            elif call.method == SERVICE + "Retire":
                self._reader.retire(call.message(messages.ArenaRetire).id)
            elif call.method == SERVICE + "Release":
                self._released(call.message(messages.ArenaRelease))
            else:
                return False
            call.answer()
        except CallError as error:
            call.fail(error.status, error.message)
        return True

    def _announced(self, call: Call, message: Any) -> None:
        if message.fd >= call.request.n_fds:
            raise CallError(Status.INVALID_ARGUMENT, "an arena without a descriptor")
        self._reader.announce(message.id, call.request.fileno(message.fd), message.size)

    def _released(self, message: Any) -> None:
        """The good ones are released all the same; the first that is none is named."""
        fault: Optional[CallError] = None
        for block in message.blocks:
            try:
                self._pool.release(block.arena, block.offset, block.length)
            except CallError as error:
                fault = fault or error
        self._watch_idle()
        if fault:
            raise fault
