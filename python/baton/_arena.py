# SPDX-License-Identifier: Apache-2.0
"""Arenas: memory that one side writes and the other reads (docs/protocol.md, "Shared memory"). Pool is the owner's side,
Reader the other. Neither sends anything; what is wrong with what the other side says is raised as a CallError.

What lies in the other side's arenas it can change at any moment: nobody looks at it but Block.take(), which copies it
once, and what is judged is the copy. Sizes cannot change, by seals, so that no access meets the end of a file.
"""

import fcntl
import mmap
import os
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from ._object import check_memory
from .errors import CallError, Status
from .payload import View, make_memfd

UNIT = 4096
ARENA_SIZE = 4 << 20
MAX_ARENAS = 64
IDLE_SECONDS = 5.0
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
F_SEAL_FUTURE_WRITE = 0x10  # the other side maps it for reading only; fcntl has no name for it yet

Span = Tuple[int, int, int]  # arena, offset, length: a block as it goes over the wire


def _wrong(what: str) -> CallError:
    return CallError(Status.INVALID_ARGUMENT, what)


def _full(what: str) -> CallError:
    return CallError(Status.RESOURCE_EXHAUSTED, what)


def _make_memory(size: int) -> Tuple[mmap.mmap, int]:
    """Sealed memory, mapped here for writing, by nobody else, and its descriptor."""
    fd = make_memfd("baton-arena", size)
    try:
        memory = mmap.mmap(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS | fcntl.F_SEAL_SEAL | F_SEAL_FUTURE_WRITE)
        return memory, fd
    except BaseException:
        os.close(fd)
        raise


class Arena:
    """One of ours."""

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.size = size
        self.ready = False  # the other side has taken it
        self.idle_since = time.monotonic()
        self.given: Dict[int, int] = {}  # blocks that the other side has: offset and length
        self._free: List[Tuple[int, int]] = [(0, size)]  # offset and length, in order, none beside another
        self._memory, self.fd = _make_memory(size)

    def close(self) -> None:
        """The memory goes when the other side lets go of it, too."""
        self._memory.close()
        os.close(self.fd)

    def put(self, data: bytes) -> Optional[Span]:
        """Copies it into the first place that is large enough; None: there is none."""
        room = -(-len(data) // UNIT) * UNIT
        for index, (offset, length) in enumerate(self._free):
            if length < room:
                continue
            self._free[index:index + 1] = [(offset + room, length - room)] if length > room else []
            self._memory[offset:offset + len(data)] = data
            self.given[offset] = len(data)
            return self.number, offset, len(data)
        return None

    def release(self, offset: int, length: int) -> None:
        """The other side gives a block back. CallError: it does not have such a block."""
        if self.given.get(offset) != length:
            raise _wrong(f"the block at {offset} of arena {self.number}: never given so, or released before")
        del self.given[offset]
        room = -(-length // UNIT) * UNIT
        index = next((n for n, (start, _) in enumerate(self._free) if start > offset), len(self._free))
        self._free.insert(index, (offset, room))
        for left in (index, index - 1):
            if 0 <= left < len(self._free) - 1 and sum(self._free[left]) == self._free[left + 1][0]:
                start, size = self._free[left]
                self._free[left:left + 2] = [(start, size + self._free[left + 1][1])]
        if not self.given:
            self.idle_since = time.monotonic()


class Pool:
    """Our arenas, for one peer. `announce` is told of a new one, which is used once it is `ready'."""

    def __init__(self, max_bytes: int, announce: Callable[[Arena], None]) -> None:
        self._max_bytes = max_bytes
        self._announce = announce
        self._arenas: Dict[int, Arena] = {}
        self._last = 0

    def close(self) -> None:
        for arena in self._arenas.values():
            arena.close()
        self._arenas.clear()

    @property
    def _bytes(self) -> int:
        return sum(arena.size for arena in self._arenas.values())

    def put(self, data: bytes) -> Optional[Span]:
        """A block that holds it, the other side's from now on; None: there is no room for it (yet)."""
        for arena in self._arenas.values():
            block = arena.put(data) if arena.ready else None
            if block:
                return block
        if all(arena.ready for arena in self._arenas.values()):
            self._grow(max(ARENA_SIZE, -(-len(data) // UNIT) * UNIT))
        return None

    def _grow(self, size: int) -> None:
        """One more, if that may be. No memory, or no descriptor, is no fault: there are other ways to send."""
        if len(self._arenas) >= MAX_ARENAS or self._bytes + size > self._max_bytes:
            return
        try:
            arena = Arena(self._last + 1, size)
        except OSError:
            return
        self._last += 1
        self._arenas[arena.number] = arena
        self._announce(arena)

    def refused(self, arena: Arena) -> None:
        """The other side did not take it: no more than there was without it."""
        if self._arenas.pop(arena.number, None):
            arena.close()
            self._max_bytes = self._bytes

    def release(self, number: int, offset: int, length: int) -> None:
        """CallError: it is no block that the other side has."""
        arena = self._arenas.get(number)
        if arena is None:
            raise _wrong(f"no such arena: {number}")
        arena.release(offset, length)

    def idle(self) -> Optional[float]:
        """When the next one has been idle for long enough; None: none is."""
        idle = [arena.idle_since for arena in self._arenas.values() if arena.ready and not arena.given]
        return min(idle) + IDLE_SECONDS if idle else None

    def retire(self, now: float) -> List[int]:
        """Those that have been idle for long enough, already gone: the other side is to be told."""
        gone = [arena for arena in self._arenas.values()
                if arena.ready and not arena.given and arena.idle_since + IDLE_SECONDS <= now]
        for arena in gone:
            del self._arenas[arena.number]
            arena.close()
        return [arena.number for arena in gone]


class _Mapping:
    """An arena of the other side's. The memory stays as long as somebody has a block of it."""

    def __init__(self, memory: mmap.mmap, size: int) -> None:
        self.memory = memory
        self.size = size
        self.retired = False
        self.n_blocks = 0


class Block(View):
    """A piece of the other side's memory that came with a frame."""

    def __init__(self, reader: "Reader", mapping: _Mapping, span: Span) -> None:
        super().__init__(span[2])
        self._reader: Optional[Reader] = reader
        self._mapping = mapping
        self._span = span

    def take(self) -> bytes:
        _, offset, length = self._span
        data = self._mapping.memory[offset:offset + length]
        self.drop()
        return data

    def drop(self) -> None:
        reader, self._reader = self._reader, None
        if reader:
            reader.hand_back(self._mapping, self._span)


class Reader:
    """The other side's arenas. `hand_over` has a function called in the loop's thread: blocks are dropped in any."""

    def __init__(self, max_bytes: int, hand_over: Callable[..., Any]) -> None:
        self._max_bytes = max_bytes
        self._max_blocks = max_bytes // UNIT + 1  # an honest peer has no more
        self._hand_over = hand_over
        self._mappings: Dict[int, _Mapping] = {}
        self._n_blocks = 0  # with us
        self._returns: List[Span] = []

    def announce(self, number: int, fd: int, size: int) -> None:
        """Maps it; the descriptor stays the caller's. CallError: it may not be."""
        if number in self._mappings:
            raise _wrong(f"arena {number}: this id is in use")
        if sum(mapping.size for mapping in self._mappings.values()) + size > self._max_bytes:
            raise _full(f"arena {number}: all arenas together may have {self._max_bytes} bytes")
        if len(self._mappings) >= MAX_ARENAS:
            raise _full(f"arena {number}: there may be {MAX_ARENAS}")
        check_memory(fd, size, SEALS, f"arena {number}")
        try:
            memory = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
        except OSError as error:
            raise _full(f"arena {number}: {error.strerror}") from error
        self._mappings[number] = _Mapping(memory, size)

    def retire(self, number: int) -> None:
        """No block of it comes any more. CallError: it is unknown, or was retired before."""
        mapping = self._mappings.get(number)
        if mapping is None or mapping.retired:
            raise _wrong(f"no such arena: {number}")
        mapping.retired = True
        self._settle(number, mapping)

    def _settle(self, number: int, mapping: _Mapping) -> None:
        if mapping.retired and mapping.n_blocks == 0:
            del self._mappings[number]

    def claim(self, number: int, offset: int, length: int) -> Block:
        """A block that came with a frame. CallError: it is none."""
        mapping = self._mappings.get(number)
        if mapping is None or mapping.retired:
            raise _wrong(f"a block in arena {number}, which is not there")
        if length == 0 or offset > mapping.size or length > mapping.size - offset:
            raise _wrong(f"a block of {length} bytes at {offset} in an arena of {mapping.size}")
        if self._n_blocks + len(self._returns) >= self._max_blocks:
            raise _wrong("more blocks than an arena has room for")
        mapping.n_blocks += 1
        self._n_blocks += 1
        return Block(self, mapping, (number, offset, length))

    def hand_back(self, mapping: _Mapping, span: Span) -> None:
        """Any thread: nobody looks at that block any more."""
        self._hand_over(self._returned, mapping, span)

    def _returned(self, mapping: _Mapping, span: Span) -> None:
        self._n_blocks -= 1
        mapping.n_blocks -= 1
        if self._mappings.get(span[0]) is mapping:
            self._returns.append(span)
            self._settle(span[0], mapping)

    def take_returns(self, most: int) -> List[Span]:
        """Blocks to be given back."""
        spans, self._returns = self._returns[:most], self._returns[most:]
        return spans

    def close(self) -> None:
        """Blocks that are still with somebody keep their memory, and are given back to nobody."""
        self._mappings.clear()
        self._returns.clear()
