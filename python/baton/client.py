# SPDX-License-Identifier: Apache-2.0
"""Client: a supervisor of one's own, and the runners that it starts."""

import logging
import os
import shutil
import socket
import subprocess
import threading
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple, Union

from . import control_pb2 as control
from ._connection import Connection
from ._link import Host
from ._loop import Loop
from ._outbox import OBJECT_FROM
from ._places import connect, control_path
from ._serving import Handler, Serving
from ._wire import Limits, check_text
from .calls import Call, Request
from .connection import MAX_SHARED, Peer
from .errors import CallError, ConnectionEnded, Error, Status
from .payload import Content, Payload, as_payload

PROGRAM = "BATON_PROGRAM"
BOOTSTRAP = "BATON_BOOTSTRAP"
CONNECT_SECONDS = 10.0
STOP_SECONDS = 15.0  # above what the keeper gives the supervisor
KILL_SECONDS = 5.0


class Exit(NamedTuple):
    """How a process ended. `how`: "exited", "signaled", "dumped" (by a signal, with a core dump), "unknown" (nobody saw
    it); `status`: the exit code, or the number of the signal."""

    how: str
    status: int

    @property
    def ok(self) -> bool:
        return self == ("exited", 0)


def _exit(message: Any) -> Exit:
    names = {control.Exit.EXITED: "exited", control.Exit.SIGNALED: "signaled", control.Exit.DUMPED: "dumped"}
    return Exit(names.get(message.how, "unknown"), message.status)


class StartError(CallError):
    """A runner did not come up; nothing of it is left. `reason`: of control.proto's StartFailure, such as "NOT_FOUND"
    or "EXITED_EARLY"; `exit`: how it ended, if it did; `last_output`: its last lines."""

    reason = ""
    exit: Optional[Exit] = None
    last_output: List[str] = []


class RunnerEndedError(CallError):
    """The runner has ended. UNAVAILABLE: the call may have run. FAILED_PRECONDITION: it has not."""

    name = ""
    instance = 0
    exit: Exit = Exit("unknown", 0)
    last_output: List[str] = []


def _make_error(status: int, message: str, details: Any = (), metadata: Any = ()) -> CallError:
    """The error of an answer: of its own class where a detail says more."""
    plain = CallError(status, message, details, metadata)
    failure = plain.detail(control.StartFailure)
    if failure is not None:
        start = StartError(status, message, details, metadata)
        names = {number: name for name, number in control.StartFailure.Reason.items()}
        start.reason = names.get(failure.reason, "UNKNOWN")
        start.exit = _exit(failure.exit) if failure.HasField("exit") else None
        start.last_output = list(failure.last_output)
        return start
    ended = plain.detail(control.RunnerEnded)
    if ended is not None:
        error = RunnerEndedError(status, message, details, metadata)
        error.name, error.instance, error.exit = ended.name, ended.instance, _exit(ended.exit)
        error.last_output = list(ended.last_output)
        return error
    return plain


class LogLine(NamedTuple):
    """One line of a runner's log. `time_us`: wall clock, microseconds. `source`: "stdout", "stderr" or "record";
    `level` and what follows it only of records. `partial`: the line goes on in the next."""

    seq: int
    time_us: int
    source: str
    text: bytes
    partial: bool
    level: int
    target: str
    file: str
    line: int


def _find_program(program: Optional[str]) -> str:
    found = program or os.environ.get(PROGRAM) or shutil.which("baton")
    if not found:
        raise Error(f"baton is not in $PATH; ${PROGRAM} names it, too")
    return found


class RemoteRunner(Peer):
    """A runner of a Client's. As a Peer it is called through the supervisor: what ends with the runner says how it
    ended (RunnerEndedError). The object may be dropped: the runner goes on until stop(), or the client's end."""

    def __init__(self, client: "Client", name: str, instance: int = 0, pid: int = 0, software: str = "") -> None:
        self.client = client
        self.name = name
        self.instance = instance
        self.pid = pid
        self.software = software

    def __repr__(self) -> str:
        return f"<RemoteRunner {self.name}>"

    def request(self, method: str, content: Content = b"", type: str = "", fds: Iterable[Any] = (), metadata: Any = (),
                timeout: Optional[float] = None, sends: bool = False, takes: bool = False,
                parent: Optional[Call] = None) -> Request:
        payload = as_payload(content, type, fds)
        outbox = self.client.connection.outbox
        if payload.size >= OBJECT_FROM and outbox.takes_object(payload):
            payload.seal()
        wrapped = Payload(control.CallRequest(name=self.name, method=check_text(method), type=check_text(payload.type),
                                              payload=payload.data, object=payload.sealed))
        wrapped._fds = payload.take_fds()
        return self.client.connection.request("baton.Control/Call", wrapped, metadata=metadata, timeout=timeout,
                                              sends=sends, takes=takes, parent=parent)

    def start(self) -> None:
        """Starts it, where the supervisor has it by its configuration, and waits until it is there; one that is up stays
        so. StartError: it did not come up. CallError: NOT_FOUND; FAILED_PRECONDITION: it has failed for good."""
        answer = self.client._control("Start", control.StartRequest(name=self.name), control.StartResponse)
        self.instance, self.pid, self.software = answer.instance, answer.pid, answer.software

    def stop(self, timeout: float = 0) -> Tuple[Exit, bool]:
        """Asks the runner to finish and to leave, by force after `timeout` seconds (0: 10). How it ended, and whether
        that took SIGKILL. One that has ended already: how. CallError NOT_FOUND: nobody knows it any more."""
        answer = self.client._control("Stop", control.StopRequest(name=self.name, timeout_us=int(timeout * 1e6)),
                                      control.StopResponse)
        return _exit(answer.exit), answer.killed

    def attach(self) -> "AttachedRunner":
        """A lane of our own to it; waits for a runner that is starting. CallError: RESOURCE_EXHAUSTED: as many as may
        be are attached; FAILED_PRECONDITION: a plain one, one that knows no attached clients, or it is stopping or not
        running; NOT_FOUND. ConnectionEnded: it ended over it."""
        return AttachedRunner(self.client, self.name)

    def signal(self, number: int) -> None:
        """Sends a signal to its process group. CallError."""
        self.client._control("Signal", control.SignalRequest(name=self.name, signal=number), control.SignalResponse)

    def logs(self, from_seq: int = 0, follow: bool = False) -> Iterator[LogLine]:
        """Its lines from that number on (0: the oldest kept). With `follow' it waits for more, until the runner has
        ended. Lines that are no longer kept are left out: `seq` tells."""
        while True:
            answer = self.client._control(
                "Logs", control.LogsRequest(name=self.name, from_seq=from_seq, wait=follow), control.LogsResponse)
            for line in answer.lines:
                yield LogLine(line.seq, line.time_us, control.LogLine.Source.Name(line.source).lower(), line.text,
                              line.partial, line.level, line.target, line.file, line.line)
            from_seq = answer.next_seq
            if answer.ended or not (follow or answer.lines):
                return


class AttachedRunner(Peer, Host):
    """A runner over a lane of one's own: calls do not pass through the supervisor, large payloads of raw bytes travel in
    shared memory. The runner may call the client's methods. close() it, or use it as a context manager; the client's
    close() does so, too. When the runner has ended, calls end UNAVAILABLE; so do open ones when it is renewed."""

    def __init__(self, client: "Client", name: str) -> None:
        answer = client.connection.call("baton.Control/Attach", control.AttachRequest(name=name))
        response = answer.message(control.AttachResponse)
        self.name: str = response.name
        self.instance: int = response.instance
        self.pid: int = response.pid
        self._client = client
        self._reason = ""
        self._ended = False
        self._up = threading.Event()
        lane = socket.socket(fileno=answer.take_fd(response.lane))
        if not client._loop.call_soon(self._open, lane):
            lane.close()
            raise ConnectionEnded("the client is closed")
        if not self._up.wait(CONNECT_SECONDS) or self._ended:
            self.close()
            raise ConnectionEnded(f"runner {name}: {self._reason or 'no HELLO in time'}")

    def _open(self, lane: socket.socket) -> None:
        self.connection = Connection(self._client._loop, lane, self, side=0, n_channels=1, renewal=True,
                                     software=self._client.software, limits=self._client.limits,
                                     max_shared=self._client.max_shared)
        self._client._attached.add(self)
        try:
            self.connection.send_channel()
        except OSError as error:
            self.connection.end(Status.UNAVAILABLE, str(error), close=False)

    def __enter__(self) -> "AttachedRunner":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the lane; the runner goes on. Again: nothing."""
        self._client._loop.call_soon(self._close)

    def _close(self) -> None:
        self.connection.end(Status.OK, "the client is done")

    def request(self, method: str, content: Content = b"", type: str = "", fds: Iterable[Any] = (), metadata: Any = (),
                timeout: Optional[float] = None, sends: bool = False, takes: bool = False,
                parent: Optional[Call] = None) -> Request:
        return self.connection.request(method, content, type, fds, metadata, timeout, sends, takes, parent)

    # --- Host ---

    def ready(self, connection: Connection, renewed: bool) -> None:
        self._up.set()

    def accept(self, call: Call) -> Optional[Handler]:
        return self._client.accept(call)

    def error(self, text: str) -> None:
        self._client.error(text)

    def ended(self, connection: Connection, status: Status, message: str) -> None:
        self._client._attached.discard(self)
        self._reason = message
        self._ended = True
        self._up.set()


class Client(Serving):
    """A connection to a supervisor: Client() starts one of our own, without any daemon; Client.connect() goes to one
    that runs. close() it, or use it as a context manager. Runners that it is attached to may call the methods that it
    was given: see method().

    A private supervisor lives as long as this object is open: whatever ends this process ends keeper, supervisor and all
    runners, too. One that others share, and its runners, go on; what may be done there follows from our role:
    PERMISSION_DENIED. When a supervisor is gone, connections to runners stay; what it is asked for ends UNAVAILABLE.

    `program`: baton's; default $BATON_PROGRAM, else it is looked for in $PATH. `software`: "name version", for logs.
    `limits`: what we accept, of each connection. `max_shared`: bytes of memory shared with each attached runner, each
    way, 0: none. `workers`: threads for handlers, made as they are needed. Faults of handlers go to the logger "baton".
    `lane`: a connected control socket, to be used instead of a private supervisor; it is consumed.
    Error: no such program; ConnectionEnded: it did not come up, and says why on standard error.
    """

    def __init__(self, program: Optional[str] = None, *, software: str = "python-client",
                 limits: Limits = Limits(), max_shared: int = MAX_SHARED, workers: int = 8,
                 lane: Optional[socket.socket] = None) -> None:
        self.limits = limits.check()
        if max_shared < 0 or workers < 1:
            raise ValueError("shared memory of less than nothing, or no thread for handlers")
        super().__init__(workers)
        self._up = threading.Event()
        self._reason = ""
        self._process: Optional["subprocess.Popen[bytes]"] = None
        self.software = check_text(software)
        self.max_shared = max_shared
        whose = "the supervisor"
        path = shutil.which("baton") if lane else _find_program(program)
        self._directory = os.path.dirname(os.path.abspath(path)) if path else ""
        if lane is None:
            whose = f"{path} supervise"
            lane = self._start_private(str(path))
        self._attached: Set[AttachedRunner] = set()
        self._closing = False
        self._loop = Loop()
        self.connection = Connection(self._loop, lane, self, side=1, n_channels=1, software=software, limits=limits)
        self.connection.make_error = _make_error
        self._thread = threading.Thread(target=self._run, name="baton-client", daemon=True)
        self._thread.start()
        if not self._up.wait(CONNECT_SECONDS) or self.connection.ended:
            self.close()
            raise ConnectionEnded(f"{whose}: {self._reason or 'no HELLO in time'}")

    @classmethod
    def connect(cls, path: Union[str, "os.PathLike[str]"] = "", **options: Any) -> "Client":
        """A client of the supervisor behind the control socket at that path; default: $BATON_SOCKET, else `control' in
        the runtime directory of this user, /run/baton, $XDG_RUNTIME_DIR/baton, or /tmp/baton-UID. Options as those of
        Client(). OSError: there is no such socket, or nobody behind it; ConnectionEnded: no supervisor answers."""
        return cls(lane=connect(os.fspath(path) or control_path(), CONNECT_SECONDS), **options)

    def _start_private(self, path: str) -> socket.socket:
        """Our end of its lane."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen([path, "supervise", f"--private={theirs.fileno()}"],
                                                 pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                                                 stdout=subprocess.DEVNULL, start_new_session=True)
            except OSError as error:
                ours.close()
                raise Error(f"cannot start {path}: {error.strerror}") from error
        return ours

    def _run(self) -> None:
        self._loop.thread = threading.get_ident()
        try:
            while not self._closing:
                self._loop.run_once()
        finally:
            if self._closing:
                self.connection.end(Status.OK, "the client is done")
            else:
                self.connection.end(Status.INTERNAL, "the client's loop was left by an exception")
            for attached in list(self._attached):
                attached.connection.end(Status.OK, "the client is done")
            self._loop.thread = None
            self._loop.close()
            self._pool.close()

    def _leave(self) -> None:
        self._closing = True

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections. A private supervisor is stopped with its runners, and their end waited for, at most 15
        seconds; then it is killed. Not in the loop's thread. Again: nothing."""
        self._loop.call_soon(self._leave)
        self._thread.join()
        if not self._process:
            return
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(KILL_SECONDS)

    # --- Host ---

    def ready(self, connection: Connection, renewed: bool) -> None:
        self._up.set()

    def ended(self, connection: Connection, status: Status, message: str) -> None:
        self._reason = message
        self._up.set()

    def accept(self, call: Call) -> Optional[Handler]:
        if self.serve_built_in(call):
            return None
        method = self.find(call)
        return self.handler(method) if method else None

    def error(self, text: str) -> None:
        logging.getLogger("baton").error(text)

    log_error = error

    # --- runners ---

    def _control(self, name: str, request: Any, response: Any) -> Any:
        return self.connection.call("baton.Control/" + name, request).message(response)

    def _find(self, program: str, directory: str) -> str:
        """What execvp() would find; a program that is installed beside baton's is found, too."""
        if "/" in program:
            return os.path.abspath(os.path.join(directory, program))
        found = shutil.which(program) or shutil.which(program, path=self._directory)
        return os.path.abspath(found) if found else program

    def start(self, program: Union[str, "os.PathLike[str]"], *arguments: str, name: str = "", plain: bool = False,
              environment: Optional[Mapping[str, str]] = None, directory: Optional[str] = None,
              start_timeout: float = 0, park_output: bool = False, max_attached: int = 0,
              limits: Optional[Limits] = None) -> RemoteRunner:
        """Starts a runner and waits until it is there: it has said Hello or, if it is a `plain` program, was executed.

        `program`: looked for in $PATH, and beside baton, unless it has a slash. `name`: 1 to 63 letters, digits and
        ". _ - @"; default: made from the program's. `environment`: all of it; default: this process's. `directory`: its
        working directory; default: this process's. `start_timeout`: seconds, 0: 10. `park_output`: its output waits for
        a reader of its log who is behind, rather than being dropped. `max_attached`: clients attached at once, 0: 64.
        `limits`: what the supervisor accepts from the runner. Interrupted, it stops what it has started.

        StartError: it did not come up. CallError: ALREADY_EXISTS, INVALID_ARGUMENT.
        """
        where = directory or os.getcwd()
        variables: Dict[bytes, bytes] = dict(os.environb) if environment is None else {
            os.fsencode(key): os.fsencode(value) for key, value in environment.items()}
        variables.pop(BOOTSTRAP.encode(), None)
        request = control.StartRequest(
            name=name, kind=control.StartRequest.PLAIN if plain else control.StartRequest.NATIVE,
            program=os.fsencode(self._find(os.fspath(program), where)),
            arguments=[os.fsencode(argument) for argument in arguments],
            environment=[key + b"=" + value for key, value in variables.items()], directory=os.fsencode(where),
            start_timeout_us=int(start_timeout * 1e6), park_output=park_output, max_attached=max_attached,
            limits=control.Limits(**limits._asdict()) if limits else None)
        answer = self._control("Start", request, control.StartResponse)
        return RemoteRunner(self, answer.name, answer.instance, answer.pid, answer.software)

    def runner(self, name: str) -> RemoteRunner:
        """The runner of that name, whether there is one or not. Calls to one that is starting wait for it."""
        return RemoteRunner(self, name)
