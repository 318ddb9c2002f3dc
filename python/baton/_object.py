# SPDX-License-Identifier: Apache-2.0
"""Sealed objects: payloads in a memfd of their own, which nobody can change any more (docs/protocol.md, "Sealed objects").
They are for what neither a frame nor the window of its stream can hold, and cost less than bytes from OBJECT_FROM on."""

import fcntl
import mmap
import os
import stat
import threading
from typing import List

from .errors import CallError, Status
from .payload import OBJECT_SEALS, View


class Sealed(View):
    """An object of the other side's."""

    def __init__(self, objects: "Objects", memory: mmap.mmap, size: int) -> None:
        super().__init__(size)
        self._objects = objects
        self._memory = memory
        self._held = True

    def take(self) -> bytes:
        data = self._memory[:]
        self.drop()
        return data

    def drop(self) -> None:
        if self._held:
            self._held = False
            self._memory.close()
            self._objects.released(self.size)


class Objects:
    """Those of one peer that are held. Any thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0
        self._lock = threading.RLock()  # an object may be dropped while it is held

    def released(self, size: int) -> None:
        with self._lock:
            self._held -= size

    def claim(self, size: int, fds: List[int], beside: bool, built_in: bool) -> Sealed:
        """The object that came as the last of those descriptors, which is taken. CallError: it is none."""
        if size > self._max_bytes:
            raise CallError(Status.RESOURCE_EXHAUSTED,
                            f"an object of {size} bytes, accepted are {self._max_bytes}")
        if not fds:
            raise CallError(Status.INVALID_ARGUMENT, "an object without a descriptor")
        if beside:
            raise CallError(Status.INVALID_ARGUMENT, "an object beside a payload or a block")
        if built_in:
            raise CallError(Status.INVALID_ARGUMENT, "an object for a method of baton's own")
        fd = fds.pop()
        try:
            return self._map(fd, size)
        finally:
            os.close(fd)

    def _map(self, fd: int, size: int) -> Sealed:
        check_memory(fd, size, OBJECT_SEALS, f"an object of {size} bytes")
        with self._lock:
            if self._held + size > self._max_bytes:
                raise CallError(Status.RESOURCE_EXHAUSTED,
                                f"an object of {size} bytes: {self._held} are held, accepted are {self._max_bytes}")
            self._held += size
        try:
            return Sealed(self, mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ), size)
        except OSError as error:
            self.released(size)
            raise CallError(Status.RESOURCE_EXHAUSTED, f"an object of {size} bytes: {error.strerror}") from error


def check_memory(fd: int, size: int, seals: int, what: str) -> None:
    """Whether that is a memfd of exactly that size, with those seals: seals first, a size is only then for good.
    CallError INVALID_ARGUMENT, about `what': it is not."""
    try:
        present = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        file = os.fstat(fd)
        # Of huge pages a hole punched into the file may be impossible to fill again.
        ordinary = stat.S_ISREG(file.st_mode) and os.fstatvfs(fd).f_bsize == mmap.PAGESIZE
    except OSError:
        ordinary = False
    if not ordinary or size == 0:
        raise CallError(Status.INVALID_ARGUMENT, f"{what}: no memfd, or an empty one")
    if present & seals != seals:
        raise CallError(Status.INVALID_ARGUMENT, f"{what}: not sealed as it must be")
    if file.st_size != size:
        raise CallError(Status.INVALID_ARGUMENT, f"{what}: the memfd has {file.st_size} bytes")
