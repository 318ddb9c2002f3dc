#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Python package against the other side as bytes (baton_wire.py): renewal, shared memory, what ends a call and what
ends the connection; of a runner, with the test as its supervisor, and of a client, with python_supervisor.py as its
supervisor and runner. TAP on stdout.
"""

import fcntl
import mmap
import os
import socket
import tempfile
import threading

import baton_wire as wire
from python_tests import HERE, TIMEOUT, baton, raises, run_tests, test, until

# ---------------------------------------------------------------------------------------------------- the other side

class Bytes:
    """The supervisor's side of a Runner in this process, as baton_wire frames."""

    def __init__(self, **options):
        path = os.path.join(tempfile.gettempdir(), "bootstrap")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            self.runner = baton.Runner(bootstrap=path, **options)
            self.lane = listening.accept()[0]
        os.unlink(path)
        self.runner.method("echo", inline=True)(lambda call: call.request)
        self.runner.method("wait", stream=True)(lambda call: call.wait_cancelled())
        self.runner.method("ask")(lambda call: self.runner.call(call.data.decode()))
        self.runner.method("later", inline=True)(lambda call: self.later.append(call) or baton.LATER)
        self.runner.start()
        self.calls, self.later = [], []

    def channels(self, epoch=0):
        """New channels in that epoch: a Peer of baton_wire's over them. What is raw is closed."""
        self.calls.clear()
        self.peer = wire.Peer(self.lane, 0, 3, "bytes", self.calls.append, epoch, instance=7)
        for number in (1, 2):
            self.peer.channels.pop(number).close()
        return self.peer

    def attach(self, on_call=None, epoch=0, **hello):
        """A client of the runner's: a Peer over a lane of its own."""
        ours, theirs = socket.socketpair()
        request = wire.baton.AttachRequest(lane=0, epoch=epoch)
        call = self.peer.message("baton.Runner/Attach", request, fds=[theirs.fileno()])
        theirs.close()
        assert self.peer.wait(call).status == wire.OK, call.message
        return wire.Peer(ours, 0, 1, "client", on_call, epoch, gives=epoch == 0, **hello)

    def end(self):
        self.lane.close()
        try:
            assert self.runner.join(TIMEOUT)
        except baton.ConnectionEnded as error:
            return str(error)
        return ""


def end_of(other):
    other.runner.quit()
    other.peer.run_until(lambda: other.peer.closed)
    other.peer.channels[0].close()
    assert other.end() == ""


@test
def renewal():
    """A new supervisor takes the lane over: log records are sent again, the runner and its state live on."""
    other = Bytes()
    renewed = threading.Event()
    other.runner.on_renewal(renewed.set)
    peer = other.channels()
    assert (peer.remote.instance, peer.remote.service_state) == (0, 2), peer.remote
    other.runner.log(6, "first")
    peer.run_until(lambda: other.calls)
    first = other.calls[0].payload
    peer.start_call("wait")
    ask = other.runner.request("nobody.Answers/This")
    peer.run_until(lambda: len(other.calls) == 2)
    reader, writer = os.pipe()
    peer.send_fd(writer)
    os.close(writer)
    peer.channels[0].close()
    peer = other.channels(3)
    assert (peer.remote.instance, peer.remote.service_state) == (7, 2), peer.remote
    assert os.read(reader, 1) == b"" and renewed.wait(TIMEOUT), "what nobody listed is closed"
    os.close(reader)
    raises(baton.Status.UNAVAILABLE, ask.result, TIMEOUT)
    peer.run_until(lambda: other.calls)
    assert other.calls[0].payload == first, "the same record with its number"
    other.calls[0].answer()
    assert peer.call("echo", b"on").payload == b"on"
    stop = wire.baton.LifecycleEvent(event=5)
    assert peer.wait(peer.message("baton.Runner/Stop", stop)).status == wire.OK
    peer = other.channels(4)  # the old channel is still open
    assert (peer.remote.service_state, peer.remote.last_event) == (3, 5), peer.remote
    assert peer.call("echo").status == wire.UNAVAILABLE
    stopped = wire.baton.LifecycleState.FromString(peer.wait(peer.message("baton.Runner/Stop", stop)).payload)
    assert (stopped.service_state, stopped.event) == (3, 5), "carried out once"
    peer.wait(peer.message("baton.Runner/Exit", wire.baton.LifecycleEvent(event=6)))
    peer.run_until(lambda: peer.closed)
    assert peer.closed == (0, "stopped") and other.end() == ""
    peer.channels[0].close()


@test
def violations():
    """What the other side must not do ends the connection, with a CLOSE that says why."""
    envelope = wire.baton.Envelope
    call = envelope(kind=wire.baton.CALL, id=2, method="wait")

    def item(size):
        return lambda peer: (peer.send(0, call), peer.send(0, envelope(kind=wire.baton.ITEM, id=2), bytes(size)))

    for wrong, status in (
            (lambda peer: peer.send(0, envelope(kind=wire.baton.CALL, id=3, method="x")), "INVALID_ARGUMENT"),
            (lambda peer: (peer.send(0, call), peer.send(0, call)), "INVALID_ARGUMENT"),
            (lambda peer: [peer.send(0, envelope(kind=wire.baton.CALL, id=2 * n, method="wait")) for n in range(1, 6)],
             "RESOURCE_EXHAUSTED"),
            (lambda peer: peer.send(0, envelope(kind=wire.baton.HELLO)), "INVALID_ARGUMENT"),
            (lambda peer: peer.send(0, envelope(kind=9)), "INVALID_ARGUMENT"),
            (lambda peer: peer.send(0, envelope(kind=wire.baton.CALL, id=2, method="a\0b")), "INVALID_ARGUMENT"),
            (lambda peer: peer.send(0, envelope(kind=wire.baton.CLOSE, id=2)), "INVALID_ARGUMENT"),
            (lambda peer: peer.send(0, envelope(kind=wire.baton.CREDIT, fd_credit=1)), "INVALID_ARGUMENT"),
            (lambda peer: (peer.send(0, call), peer.send(0, envelope(kind=wire.baton.CREDIT, id=2, credit=1))),
             "INVALID_ARGUMENT"),
            (lambda peer: peer.send(0, envelope(kind=wire.baton.CALL, id=2, blocks=[wire.baton.Block(arena=1)])),
             "INVALID_ARGUMENT"),
            (item(4096), "RESOURCE_EXHAUSTED"),
            (lambda peer: peer.channels[0].sendall(b"\xff\xff\xff\xff"), "RESOURCE_EXHAUSTED"),
            (lambda peer: peer.channels[0].sendall(b"\0\0\0\3"), "INVALID_ARGUMENT"),
            (lambda peer: peer.channels[0].sendall(b"\0\0\0\4\0\0\0\1"), "INVALID_ARGUMENT"),
            (lambda peer: peer.channels[0].sendall(b"\0\0\0\5\0\0\0\1\xff"), "INVALID_ARGUMENT"),
            (lambda peer: peer.lane.sendall(b"\6" + bytes(7)), "INVALID_ARGUMENT"),
            (lambda peer: socket.send_fds(peer.lane, [b"\6" + bytes(7)], [0, 0]), "INVALID_ARGUMENT"),
            (lambda peer: socket.send_fds(peer.lane, [b"\7" + bytes(7)], [0]), "INVALID_ARGUMENT"),
            (lambda peer: socket.send_fds(peer.lane, [b"\6\0\0\0\1\0\0\0"], [0]), "INVALID_ARGUMENT"),
            (lambda peer: socket.send_fds(peer.lane, [b"\0\0\0\0\1\0\0\0"], [0]), "INVALID_ARGUMENT"),
            (lambda peer: [peer.send_fd(0) for _ in range(3)], "RESOURCE_EXHAUSTED")):
        other = Bytes(max_calls=4, stream_window=4096, fd_credit=2)
        peer = other.channels()
        wrong(peer)
        peer.run_until(lambda: peer.closed)
        assert baton.Status(peer.closed[0]).name == status, peer.closed
        assert other.end().startswith(status + ": "), "run() says it, too"
        peer.channels[0].close()


@test
def faults_of_one_call():
    """What spoils a call ends that call, and nothing else."""
    envelope = wire.baton.Envelope
    other = Bytes(stream_window=65536)
    peer = other.channels()
    for fds, status in (([6], wire.INVALID_ARGUMENT), ([8, 8], wire.INVALID_ARGUMENT)):
        request = wire.Pending(peer.next_call.get(0, 1) << 1)
        peer.next_call[0] = (request.id >> 1) + 1
        peer.pending[0, request.id] = request
        if fds == [8, 8]:
            socket.send_fds(peer.lane, [b"\x08" + bytes(7)], [0])
        peer.send(0, envelope(kind=wire.baton.CALL, id=request.id, method="echo", fds=fds, end=True))
        assert peer.wait(request).status == status
    peer.send(0, envelope(kind=wire.baton.ANSWER, id=3))  # stray and late ones are dropped
    peer.send(0, envelope(kind=wire.baton.CANCEL, id=2))
    peer.send(0, envelope(kind=wire.baton.ITEM, id=2), b"late")
    peer.send(0, envelope(kind=wire.baton.CREDIT, id=2, credit=5))
    assert peer.call("echo", b"on").payload == b"on"
    assert peer.call("echo", b"1", timeout_us=(1 << 64) - 1).payload == b"1", "a deadline beyond what the system counts"
    call = peer.start_call("wait", timeout_us=1 << 55)
    assert peer.call("echo", b"1").payload == b"1"
    peer.send(0, envelope(kind=wire.baton.ITEM, id=call.id, end=True))
    assert peer.wait(call).status == wire.INVALID_ARGUMENT, "an item after a CALL with end"
    request = other.runner.request("asked")
    peer.run_until(lambda: other.calls)
    peer.send(0, envelope(kind=wire.baton.ANSWER, id=other.calls[0].envelope.id, fds=[1000]))
    raises(baton.Status.INVALID_ARGUMENT, request.result, TIMEOUT)
    other.runner.quit()
    peer.run_until(lambda: peer.closed)
    assert peer.closed[0] == wire.OK and other.end() == ""
    peer.channels[0].close()


@test
def backlog():
    """Who does not read his answers is not served for ever; but a side that waits for answers itself goes on reading."""
    other = Bytes(max_calls=32)
    peer = other.channels()
    calls = []
    sender = threading.Thread(target=lambda: calls.extend(peer.start_call("echo", bytes(1 << 20)) for _ in range(12)))
    sender.start()
    channel = other.runner._connection._channel
    until(lambda: channel.paused, "the pause")
    assert channel.unsent < 4 << 20
    while len(calls) < 12 or not all(call.done for call in calls):
        peer.turn(TIMEOUT)
    sender.join(TIMEOUT)
    assert all(len(call.payload) == 1 << 20 for call in calls)
    end_of(other)
    other = Bytes(max_calls=4)
    peer = other.channels()
    request = other.runner.request("x")
    peer.run_until(lambda: other.calls)
    for _ in range(4):
        peer.start_call("echo", bytes(1 << 20))
    peer.start_call("echo")
    raises(baton.Status.UNAVAILABLE, request.result, TIMEOUT)
    assert other.end() == "RESOURCE_EXHAUSTED: a CALL above the 4 that may be open"
    peer.channels[0].close()


# ------------------------------------------------------------------------------------------------------- shared memory

class Memory:
    """An arena of ours, and the calls of the runner's about arenas, which are answered as they come."""

    SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW

    def __init__(self, other):
        self.released, self.theirs, self.refuses, self.retired = [], {}, False, []
        self.peer = other.attach(self.serve, features=["arena", "unheard-of"], stream_window=1 << 20)
        assert list(self.peer.remote.features) == ["arena"]
        self.maps = {}

    def serve(self, call):
        method = call.envelope.method
        if method == "baton.Arena/Release":
            message = wire.arena.ArenaRelease.FromString(call.payload)
            self.released += [(block.arena, block.offset, block.length) for block in message.blocks]
        elif method == "baton.Arena/Announce" and not self.refuses:
            message = wire.arena.ArenaAnnounce.FromString(call.payload)
            assert fcntl.fcntl(call.fds[message.fd], fcntl.F_GET_SEALS) & self.SEALS == self.SEALS
            self.theirs[message.id] = mmap.mmap(call.fds[message.fd], message.size, mmap.MAP_SHARED, mmap.PROT_READ)
            try:
                mmap.mmap(call.fds[message.fd], message.size)
                raise AssertionError("only its owner writes")
            except PermissionError:
                pass
        elif method == "baton.Arena/Retire":
            self.retired.append(wire.arena.ArenaRetire.FromString(call.payload).id)
        for fd in call.fds:
            os.close(fd)
        call.answer(status=wire.RESOURCE_EXHAUSTED if self.refuses else wire.OK)

    def announce(self, number, size, seals=SEALS, file_size=None, fd=None):
        """The status of the answer."""
        own = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(own, size if file_size is None else file_size)
        fcntl.fcntl(own, fcntl.F_ADD_SEALS, seals)
        message = wire.arena.ArenaAnnounce(id=number, size=size, fd=0)
        call = self.peer.wait(self.peer.message("baton.Arena/Announce", message, fds=[own if fd is None else fd]))
        if call.status == wire.OK:
            self.maps[number] = mmap.mmap(own, size)
        os.close(own)
        return call.status

    def block(self, number, offset, data):
        self.maps[number][offset:offset + len(data)] = data
        return wire.baton.Block(arena=number, offset=offset, length=len(data))

    def release(self, *blocks):
        message = wire.arena.ArenaRelease(blocks=blocks)
        return self.peer.wait(self.peer.message("baton.Arena/Release", message)).status

    def status(self, *blocks, payload=b"", type=""):
        """Of a call of "echo" with those blocks."""
        return self.peer.call("echo", payload, blocks=blocks, type=type).status

    def close(self):
        for memory in (*self.maps.values(), *self.theirs.values()):
            memory.close()
        self.peer.close()


@test
def shared_memory():
    """Blocks both ways: what comes is given back, what goes is used again when it was given back."""
    other = Bytes()
    other.channels()
    ours = Memory(other)
    assert ours.announce(1, 1 << 20) == wire.OK
    data = bytes(range(256)) * 1200
    answer = ours.peer.call("echo", blocks=[ours.block(1, 8192, data)])
    assert (answer.status, answer.payload, len(answer.blocks)) == (0, data, 0), "the first comes inline"
    ours.peer.run_until(lambda: ours.released == [(1, 8192, len(data))])
    ours.peer.run_until(lambda: ours.theirs)
    ours.peer.call("echo")  # behind the answer to its Announce
    answers = [ours.peer.call("echo", data) for _ in range(12)]
    assert all(len(answer.blocks) == 1 and not answer.payload for answer in answers), answers
    spans = [(one.blocks[0].offset, one.blocks[0].length) for one in answers]
    assert len(set(spans)) == 12 and {length for _, length in spans} == {len(data)}, spans
    for offset, length in spans:
        assert ours.theirs[1][offset:offset + length] == data
    assert all(later[0] - first[0] >= len(data) for first, later in zip(sorted(spans), sorted(spans)[1:]))
    first, second, *rest = (answer.blocks[0] for answer in answers)
    assert ours.release(first, second) == wire.OK
    assert ours.release(first) == wire.INVALID_ARGUMENT, "twice"
    again = [ours.peer.call("echo", data).blocks[0] for _ in range(2)]
    assert {block.offset for block in again} == {first.offset, second.offset}, "free memory is used again"
    assert len(ours.peer.call("echo", data, type="test.Type").payload) == len(data), "a typed message is never shared"
    assert len(ours.peer.call("echo", data[:262143]).payload) == 262143, "a small one is not"
    assert ours.release(*again, *rest) == wire.OK
    ours.close()
    end_of(other)


@test
def shared_memory_runs_out():
    """What finds no room goes inline; what is refused is not asked for again; larger blocks get arenas of their own."""
    other = Bytes(max_shared=5 << 20)
    other.channels()
    ours = Memory(other)
    data = bytes(1 << 20)
    ours.peer.call("echo", data)
    ours.peer.run_until(lambda: ours.theirs)
    answers = [ours.peer.call("echo", data) for _ in range(6)]
    assert sum(len(answer.blocks) for answer in answers) == 4 and list(ours.theirs) == [1], "5 MiB are not two arenas"
    assert ours.announce(1, 5 << 20) == wire.OK, "each direction has its own"
    assert ours.announce(2, 4096) == wire.RESOURCE_EXHAUSTED
    ours.close()
    ours = Memory(other)
    ours.refuses = True
    for _ in range(5):
        assert ours.peer.call("echo", data).payload == data
    assert not ours.theirs
    ours.close()
    ours = Memory(other)
    ours.peer.call("echo", bytes(5 << 20))
    ours.peer.run_until(lambda: ours.theirs)
    ours.peer.call("echo")
    assert ours.peer.call("echo", bytes(5 << 20)).blocks[0].length == 5 << 20
    ours.close()
    end_of(other)


@test
def shared_memory_is_judged():
    """Every number of a block is foreign; what is none ends its call, and nothing else."""
    other = Bytes()
    other.channels()
    ours = Memory(other)
    block = wire.baton.Block
    assert ours.status(block(arena=1, length=1)) == wire.INVALID_ARGUMENT, "no such arena"
    assert ours.announce(1, 8192, seals=fcntl.F_SEAL_SHRINK) == wire.INVALID_ARGUMENT, "it may grow"
    assert ours.announce(1, 8192, seals=fcntl.F_SEAL_GROW) == wire.INVALID_ARGUMENT, "it may shrink"
    assert ours.announce(1, 8192, file_size=4096) == wire.INVALID_ARGUMENT, "of another size"
    assert ours.announce(1, 0) == wire.INVALID_ARGUMENT
    assert ours.announce(1, 65 << 20, file_size=0) == wire.RESOURCE_EXHAUSTED
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as file:
        assert ours.announce(1, 8192, fd=reader) == wire.INVALID_ARGUMENT, "no memory"
        assert ours.announce(1, 8192, fd=file.fileno()) == wire.INVALID_ARGUMENT, "a file"
    os.close(reader)
    os.close(writer)
    message = wire.arena.ArenaAnnounce(id=1, size=8192, fd=1)
    assert ours.peer.wait(ours.peer.message("baton.Arena/Announce", message)).status == wire.INVALID_ARGUMENT
    assert ours.announce(1, 8192) == wire.OK
    assert ours.announce(1, 8192) == wire.INVALID_ARGUMENT, "the id is in use"
    for wrong in (block(arena=1, offset=0, length=0), block(arena=1, offset=0, length=8193),
                  block(arena=1, offset=8192, length=1), block(arena=1, offset=4096, length=(1 << 64) - 1),
                  block(arena=1, offset=(1 << 64) - 1, length=1), block(arena=1, offset=(1 << 64) - 4096, length=8192),
                  block(arena=2, offset=0, length=1), block(arena=(1 << 64) - 1, length=1)):
        assert ours.status(wrong) == wire.INVALID_ARGUMENT, wrong
    assert not ours.released
    good = ours.block(1, 0, b"good")
    assert ours.status(good, good) == wire.INVALID_ARGUMENT, "two that are a payload"
    assert ours.status(good, type="test.Type") == wire.INVALID_ARGUMENT, "a typed message"
    assert ours.peer.call("echo", b"beside", blocks=[good]).payload == b"beside"
    ours.peer.run_until(lambda: len(ours.released) == 4)
    assert ours.release(block(arena=1, offset=0, length=4096)) == wire.INVALID_ARGUMENT, "it was never given one"
    assert ours.peer.call("baton.Arena/Announce", b"\xff").status == wire.INVALID_ARGUMENT
    assert ours.peer.call("baton.Arena/Other").status == wire.UNIMPLEMENTED
    assert other.peer.call("baton.Arena/Retire").status == wire.UNIMPLEMENTED, "not offered to the supervisor"
    request = other.runner.request("x")
    other.peer.run_until(lambda: other.calls)
    other.peer.send(0, wire.baton.Envelope(kind=wire.baton.ANSWER, id=other.calls[0].envelope.id))
    request.result(TIMEOUT)
    assert ours.peer.call("echo", b"on").payload == b"on"
    ours.close()
    end_of(other)


@test
def shared_memory_is_copied_once():
    """A handler sees what lay there when it first looked, whatever the owner does then; the block is held until then,
    also over a retirement."""
    other = Bytes()
    other.channels()
    ours = Memory(other)
    assert ours.announce(1, 4096) == wire.OK
    held = ours.peer.start_call("later", blocks=[ours.block(1, 0, b"before")])
    until(lambda: other.later, "the call")
    call, = other.later
    assert ours.peer.call("echo", b"1").payload == b"1" and not ours.released, "it is held"
    retire = wire.arena.ArenaRetire(id=1)
    assert ours.peer.wait(ours.peer.message("baton.Arena/Retire", retire)).status == wire.OK
    assert ours.peer.wait(ours.peer.message("baton.Arena/Retire", retire)).status == wire.INVALID_ARGUMENT
    assert ours.status(wire.baton.Block(arena=1, length=1)) == wire.INVALID_ARGUMENT, "it is retired"
    ours.maps[1][:6] = b"second"
    assert call.data == b"second"
    ours.maps[1][:6] = b"third "
    assert call.data == b"second"
    ours.peer.run_until(lambda: ours.released == [(1, 0, 6)])
    call.answer()
    assert ours.peer.wait(held).status == wire.OK
    assert ours.announce(1, 4096) == wire.OK, "it is unmapped"
    dropped = ours.peer.start_call("later", blocks=[ours.block(1, 0, b"unseen")])
    until(lambda: len(other.later) == 2, "the call")
    other.later[1].answer()
    assert ours.peer.wait(dropped).status == wire.OK
    ours.peer.run_until(lambda: len(ours.released) == 2)
    kept = ours.peer.start_call("later", blocks=[ours.block(1, 0, b"kept")])
    until(lambda: len(other.later) == 3, "the call")
    ours.close()
    del kept
    until(lambda: other.later[2].cancelled, "the client's end")
    assert other.later[2].data == b"kept", "the memory stays while somebody has a block of it"
    end_of(other)


@test
def shared_memory_in_streams():
    """A block costs nothing of the window, in neither direction."""
    other = Bytes(stream_window=65536)
    other.runner.method("stream", stream=True)(lambda call: (item for item in call))
    other.channels()
    ours = Memory(other)
    data = b"x" * 200000 + b"y" * 100000
    assert ours.announce(1, 16 << 20) == wire.OK
    call = ours.peer.start_call("stream", end=False)
    items = []
    handle = ours.peer.handle

    def handle_items(number, envelope, payload):
        if envelope.kind == wire.baton.ITEM:
            items.append((list(envelope.blocks), payload))
            ours.peer.send(0, wire.baton.Envelope(kind=wire.baton.CREDIT, id=call.id, credit=len(payload) + 64))
        handle(number, envelope, payload)
    ours.peer.handle = handle_items
    for n in range(30):
        ours.peer.send(0, wire.baton.Envelope(kind=wire.baton.ITEM, id=call.id,
                                              blocks=[ours.block(1, n * 303104, data)]))
    ours.peer.run_until(lambda: len(items) == 30 and len(ours.released) == 30)
    shared = [blocks[0] for blocks, _ in items if blocks]
    assert len(shared) >= 10 and all(payload == data for blocks, payload in items if not blocks)
    for block in shared:
        assert ours.theirs[1][block.offset:block.offset + block.length] == data
    ours.peer.send(0, wire.baton.Envelope(kind=wire.baton.ITEM, id=call.id, end=True))
    assert ours.peer.wait(call).status == wire.OK
    ours.close()
    end_of(other)


@test
def objects_are_judged():
    """A sealed object is the payload; what is none ends its call, and nothing else; what is held is bounded."""
    other = Bytes(max_object=1 << 20)
    peer = other.channels()
    assert peer.remote.max_object == 1 << 20
    sealed = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

    def call(method, data=b"", size=None, seals=sealed, payload=b"", fd=None, kind="", listed=True):
        own = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(own, data)
        fcntl.fcntl(own, fcntl.F_ADD_SEALS, seals)
        pending = wire.Pending(peer.next_call.get(0, 1) << 1)
        peer.next_call[0] = (pending.id >> 1) + 1
        peer.pending[0, pending.id] = pending
        peer.send(0, wire.baton.Envelope(kind=wire.baton.CALL, id=pending.id, method=method, end=True, type=kind,
                                         object=len(data) if size is None else size), payload,
                  [own if fd is None else fd] if listed else [])
        os.close(own)
        return pending

    def status(*arguments, **options):
        return peer.wait(call(*arguments, **options)).status

    answer = peer.wait(call("echo", b"sealed", kind="test.Type"))
    assert (answer.status, answer.payload, answer.type, answer.fds) == (wire.OK, b"sealed", "test.Type", [])
    reader, writer = os.pipe()
    for fault in (dict(seals=sealed & ~fcntl.F_SEAL_WRITE), dict(seals=sealed & ~fcntl.F_SEAL_GROW), dict(size=5),
                  dict(size=7), dict(payload=b"beside"), dict(fd=reader), dict(listed=False)):
        assert status("echo", b"sealed", **fault) == wire.INVALID_ARGUMENT, fault
    os.close(reader)
    os.close(writer)
    assert status("baton.Runner/Ping", b"\x08\x07") == wire.INVALID_ARGUMENT
    assert status("echo", b"x", size=(1 << 20) + 1) == wire.RESOURCE_EXHAUSTED
    assert status("echo", b"x", size=(1 << 64) - 1) == wire.RESOURCE_EXHAUSTED
    held = call("later", bytes(600000))
    until(lambda: other.later, "the call")
    assert status("echo", bytes(600000)) == wire.RESOURCE_EXHAUSTED, "together they are too many"
    assert other.later[0].data == bytes(600000)
    assert status("echo", bytes(600000)) == wire.OK, "what was copied is not held"
    other.later[0].answer()
    assert peer.wait(held).status == wire.OK
    end_of(other)


# ------------------------------------------------------------------------------------------------------------- a client

def supervisor():
    """A client whose supervisor is python_supervisor.py, which is what runners it attaches to are, too."""
    return baton.Client(os.path.join(HERE, "python_supervisor.py"))


@test
def a_client_is_renewed():
    """A runner's successor takes the lane over: answers that were on their way count, what was open ends, and arenas and
    numbers begin anew."""
    with supervisor() as client, client.runner("fake").attach() as direct:
        large = bytes(300000)
        for epoch in (1, 2, 7):
            assert direct.call("number", timeout=TIMEOUT).data == b"2", "ids start anew"
            until(lambda: direct.call("shared", large, timeout=TIMEOUT).data == b"a block", "an arena")
            held = direct.request("hold")
            stream = direct.stream("hold", timeout=TIMEOUT)
            reader, writer = os.pipe()
            with_fd = direct.request("hold", fds=[writer])
            os.close(writer)
            answer = direct.call("renew", b"%d" % epoch, timeout=TIMEOUT)
            assert answer.data == b"renewed", "an answer of the old epoch"
            for request in (held, with_fd, stream):
                raises(baton.Status.UNAVAILABLE, request.result, TIMEOUT)
            assert os.read(reader, 1) == b"", "nobody keeps a copy"
            os.close(reader)
    assert client._process.returncode == 0


@test
def a_client_judges_a_runner():
    """What a runner must not do ends the connection to it, with a CLOSE that says why, and nothing else."""
    with supervisor() as client:
        for wrong, status in (("kind", wire.INVALID_ARGUMENT), ("length", wire.RESOURCE_EXHAUSTED),
                              ("envelope", wire.INVALID_ARGUMENT), ("nul", wire.INVALID_ARGUMENT),
                              ("hello", wire.INVALID_ARGUMENT), ("id", wire.INVALID_ARGUMENT),
                              ("credit", wire.INVALID_ARGUMENT), ("window", wire.RESOURCE_EXHAUSTED),
                              ("lane", wire.INVALID_ARGUMENT), ("channel", wire.INVALID_ARGUMENT)):
            with client.runner("fake").attach() as direct:
                request = direct.stream("wrong", wrong.encode(), timeout=TIMEOUT)
                raises(baton.Status.UNAVAILABLE, request.result, TIMEOUT)
                raises(baton.Status.UNAVAILABLE, direct.call, "number", timeout=TIMEOUT)
            with client.runner("fake").attach() as direct:
                said = direct.call("closed", timeout=TIMEOUT).data.decode()
                assert said == str(status), (wrong, said)
        with client.runner("fake").attach() as direct:
            for wrong, status in (("absent", baton.Status.INVALID_ARGUMENT), ("block", baton.Status.INVALID_ARGUMENT),
                                  ("unwanted", baton.Status.UNIMPLEMENTED), ("half_close", baton.Status.INVALID_ARGUMENT),
                                  ("status", baton.Status.UNKNOWN)):
                kind = direct.request if wrong == "unwanted" else direct.stream
                raises(status, kind("wrong", wrong.encode(), timeout=TIMEOUT).result, TIMEOUT)
            assert direct.call("echo", b"on", timeout=TIMEOUT).data == b"on"


@test
def an_attached_lane_in_a_later_epoch():
    """Attach says in which epoch the lane is: then it is the runner who sends the channel."""
    other = Bytes()
    other.channels()
    peer = other.attach(epoch=3)
    assert peer.remote.instance == 7 and peer.call("echo", b"three").payload == b"three"
    reader, writer = os.pipe()
    answer = peer.call("echo", fds=[writer])
    assert answer.status == wire.OK and len(answer.fds) == 1
    os.close(writer)
    os.close(answer.fds[0])
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert peer.call("baton.Runner/Exit").status == wire.PERMISSION_DENIED
    nonce = wire.baton.Ping(nonce=5)
    assert wire.baton.Ping.FromString(peer.wait(peer.message("baton.Runner/Ping", nonce)).payload) == nonce
    peer.close()
    end_of(other)


run_tests()
