# SPDX-License-Identifier: Apache-2.0
"""Runner: a process that baton starts, hands its channels, and calls."""

import logging
import os
import socket
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterable, List, Optional, Set

from . import baton_pb2 as pb
from ._connection import Connection
from ._lane import as_channel
from ._link import RENEWAL_SECONDS, Host
from ._log import DEBUG, ERROR, INFO, WARNING, LogQueue, make_record
from ._loop import Loop
from ._places import connect
from ._serving import Handler, Serving
from ._wire import RESERVED, Limits, PeerFault, check_text
from .calls import Call, Request
from .connection import MAX_SHARED, Peer
from .errors import CallError, ConnectionEnded, Error, Status
from .payload import Content

BOOTSTRAP = "BATON_BOOTSTRAP"
RUNNING, READY, STOPPED = 2, 3, 4
MAX_CLIENTS = 256


class _ClientHost(Host):
    """A client that is attached: it may call the application's methods, and look; the runner's life is not its own."""

    def __init__(self, runner: "Runner", number: int) -> None:
        self._runner = runner
        self._number = number

    def hello(self, hello: Any) -> None:
        hello.instance = self._runner.instance
        hello.service_state = self._runner._service_state

    def accept(self, call: Call) -> Optional[Handler]:
        if self._runner.serve_built_in(call):
            return None
        if call.method in self._runner._for_supervisor:
            call.fail(Status.PERMISSION_DENIED, f"{call.method} is for the supervisor")
            return None
        return self._runner._accept(call)

    def settled(self, call: Call) -> None:
        self._runner._settled(call)

    def ended(self, connection: Connection, status: Status, message: str) -> None:
        self._runner._clients.pop(self._number, None)

    def error(self, text: str) -> None:
        self._runner.log(ERROR, text, "baton")


class Runner(Peer, Serving):
    """This process as baton sees it.

    Made, it is connected; run() serves. As a Peer it is the supervisor: call(), stream(), request() call that.

    `software`: "name version", for logs; default: the program's name. `bootstrap`: path of the bootstrap socket, as
    uds_path_argument() finds it; default $BATON_BOOTSTRAP, which is then removed from the environment. `workers`: threads
    for handlers, made as they are needed. `max_shared`: bytes of memory shared with each attached client, each way, 0:
    none. `max_log_records`: kept until they are acknowledged; more are dropped and counted: see `park_log`. `park_log`: a
    thread other than the loop's waits in log() for room, nothing of its is dropped. The other limits are those of Limits,
    of each connection.

    Error: not started by baton. OSError: the socket could not be reached. ValueError: such limits cannot be.
    """

    def __init__(self, *, software: str = "", bootstrap: Optional[str] = None, workers: int = 32,
                 max_frame: int = Limits().max_frame, max_calls: int = Limits().max_calls,
                 fd_credit: int = Limits().fd_credit, stream_window: int = Limits().stream_window,
                 max_object: int = Limits().max_object, max_memory: int = Limits().max_memory,
                 max_held_fds: int = Limits().max_held_fds, max_waiting: int = Limits().max_waiting,
                 max_waiting_bytes: int = Limits().max_waiting_bytes, max_unsent: int = Limits().max_unsent,
                 max_shared: int = MAX_SHARED, max_log_records: int = 1024, park_log: bool = False) -> None:
        self._limits = Limits(max_frame, max_calls, fd_credit, stream_window, max_object, max_memory, max_held_fds,
                              max_waiting, max_waiting_bytes, max_unsent).check()
        if max_shared < 0 or min(workers, max_log_records) < 1:
            raise ValueError("shared memory of less than nothing, no thread for handlers, or no log record")
        path = bootstrap or os.environ.get(BOOTSTRAP)
        if not path:
            raise Error(f"${BOOTSTRAP} is not set: this program is a runner, which baton starts "
                        f"(baton call --exec {os.path.basename(sys.argv[0]) or 'PROGRAM'} -- METHOD)")
        super().__init__(workers)
        self._serving: Set[Call] = set()
        self._clients: Dict[int, Connection] = {}
        self._n_clients = 0
        self._service_state = RUNNING
        self._last_event = 0
        self._event: Optional[int] = None  # under way
        self._next_state = RUNNING
        self._event_call: Optional[Call] = None
        self._leaving = False
        self._thread: Optional[threading.Thread] = None
        self._end: Optional[ConnectionEnded] = None
        self._ended = threading.Event()
        self._on_renewal: Optional[Callable[[], None]] = None
        self._software = check_text(software or os.path.basename(sys.argv[0]) or "python")
        self._max_shared = max_shared
        self._log = LogQueue(max_log_records, park_log)
        lane = connect(path)
        if bootstrap is None:
            del os.environ[BOOTSTRAP]
        self._loop = Loop()
        self._connection = Connection(self._loop, lane, self, side=1, n_channels=3, renewal=True, limits=self._limits,
                                      software=self._software)

    # --- life ---

    def run(self) -> None:
        """Serves until the supervisor says stop, or is gone for good. The calling thread is the loop's meanwhile.
        ConnectionEnded: another end than an orderly one."""
        self._loop.thread = threading.get_ident()
        try:
            while not self._ended.is_set():
                self._loop.run_once()
                if self._may_leave():
                    why = "stopped" if self._service_state == STOPPED else "the runner has quit"
                    self._connection.end(Status.OK, why)
        finally:
            if not self._connection.ended:
                self._connection.end(Status.INTERNAL, "the runner's loop was left by an exception")
            for client in list(self._clients.values()):
                client.end(Status.OK, "the runner has ended")
            self._log.close()
            self._loop.thread = None
            self._loop.close()
            self._pool.close()
        if self._end:
            raise self._end

    def start(self) -> None:
        """Runs the loop in a thread of its own, a daemon: join() waits for its end."""
        def serve() -> None:
            try:
                self.run()
            except ConnectionEnded:
                pass  # join() says it

        self._thread = threading.Thread(target=serve, name="baton-runner", daemon=True)
        self._thread.start()

    def join(self, timeout: Optional[float] = None) -> bool:
        """After start(): waits for the end, at most so many seconds. False: it goes on. ConnectionEnded: as run()."""
        assert self._thread, "start() comes first"
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        if self._end:
            raise self._end
        return True

    def quit(self) -> None:
        """Has run() return when what was answered has been written and the log is acknowledged. Any thread, and signal
        handlers."""
        def leave() -> None:
            self._leaving = True
        self._loop.call_soon(leave)

    @property
    def instance(self) -> int:
        """The number of this start, never reused; 0 before the supervisor's Hello."""
        return self._connection.instance

    @property
    def is_stopping(self) -> bool:
        """Whether the supervisor has asked for the stop: no new calls come, open ones are to be finished."""
        return self._service_state != RUNNING or self._event is not None

    def on_renewal(self, function: Callable[[], None]) -> Callable[[], None]:
        """Calls that, in the loop's thread, when a new supervisor has taken over: requests of ours that were open have
        ended UNAVAILABLE, calls to us are cancelled, channels taken before are dead."""
        self._on_renewal = function
        return function

    def take_channel(self, number: int, timeout: float = RENEWAL_SECONDS) -> socket.socket:
        """Channel 1 (FILESYSTEM) or 2 (DATA) as a raw, non-blocking socket, from now on the caller's; waits until it is
        there, not in the loop's thread. TimeoutError: it is not, or was taken before."""
        if number not in (1, 2):
            raise ValueError("channels 1 and 2 can be taken")
        end = time.monotonic() + timeout
        found: List[Optional[socket.socket]] = []
        while True:
            asked = threading.Event()

            def ask() -> None:
                found.append(self._connection.take_channel(number))
                asked.set()
            if self._loop.is_here:
                ask()
            elif not self._loop.call_soon(ask) or not asked.wait(max(0.0, end - time.monotonic())):
                raise TimeoutError(f"channel {number} did not arrive")
            channel = found.pop()
            if channel:
                return channel
            if self._loop.is_here or time.monotonic() >= end:
                raise TimeoutError(f"channel {number} is not there")
            self._ended.wait(0.005)

    def request(self, method: str, content: Content = b"", type: str = "", fds: Iterable[Any] = (), metadata: Any = (),
                timeout: Optional[float] = None, sends: bool = False, takes: bool = False,
                parent: Optional[Call] = None) -> Request:
        return self._connection.request(method, content, type, fds, metadata, timeout, sends, takes, parent)

    def _may_leave(self) -> bool:
        if not self._leaving or self._connection.ended:
            return False
        if not self._connection.ready:
            return True
        return self._log.empty and all(one.flushed for one in (self._connection, *self._clients.values()))

    # --- log ---

    def log(self, level: int, text: str, target: str = "", file: str = "", line: int = 0) -> None:
        """A record for the supervisor's log. `level` as syslog's: 3 error, 4 warning, 5 notice, 6 info, 7 debug.
        `target`: the part of the program that speaks. Any thread; never waits and never fails: what does not fit is
        dropped, counted, and reported. With `park_log` other threads than the loop's wait for room instead, until half
        of it is there or the runner has ended; the loop's cannot wait, since it is what makes room. Cut at 8 KiB; what is
        no text is replaced by '?'."""
        self._log.append(make_record(level, text, target, file, line), not self._loop.is_here)
        self._loop.call_soon(self._log.pump, self._connection)

    # --- Host: what the connection asks ---

    def hello(self, hello: Any) -> None:
        hello.instance = self._connection.instance if hasattr(self, "_connection") else 0
        hello.service_state = self._service_state
        hello.last_event = self._last_event

    def ready(self, connection: Connection, renewed: bool) -> None:
        self._log.pump(connection)
        if renewed and self._on_renewal:
            connection.guarded(self._on_renewal)

    def accept(self, call: Call) -> Optional[Handler]:
        function = self._for_supervisor.get(call.method)
        if function is None:
            return None if self.serve_built_in(call) else self._accept(call)
        try:
            function(self, call)
        except CallError as error:
            call.fail(error.status, error.message)
        return None

    def _accept(self, call: Call) -> Optional[Handler]:
        """A call of the application's, whoever calls."""
        if self.is_stopping and not call.method.startswith(RESERVED):
            call.fail(Status.UNAVAILABLE, "the runner is stopping and takes no new calls")
            return None
        method = self.find(call)
        if method is None:
            return None
        self._serving.add(call)
        return self.handler(method)

    def settled(self, call: Call) -> None:
        self._settled(call)

    def _settled(self, call: Call) -> None:
        self._serving.discard(call)
        if self._event is not None and not self._serving:
            self._complete()

    def ended(self, connection: Connection, status: Status, message: str) -> None:
        if status not in (Status.OK, Status.UNAVAILABLE):  # an orderly end, or the lane's
            self._end = ConnectionEnded(f"{status.name}: {message}")
        self._ended.set()

    def error(self, text: str) -> None:
        self.log(ERROR, text, "baton")

    log_error = error

    def takes_calls(self) -> bool:
        return not self.is_stopping

    # --- what baton asks ---

    def _stop(self, call: Call) -> None:
        self._begin(call, RUNNING, READY)

    def _exit(self, call: Call) -> None:
        self._begin(call, READY, STOPPED)

    def _begin(self, call: Call, state: int, next_state: int) -> None:
        """An event of the service's life: carried out once, whoever asks however often."""
        event = call.message(pb.LifecycleEvent).event
        if event and event == self._last_event:
            self._answer_state(call, event)
        elif event and event == self._event and next_state == self._next_state:
            if self._event_call and not self._event_call.ended:
                self._event_call.fail(Status.ABORTED, f"event {event} was asked for again")
            self._event_call = call
        elif self._event is not None or self._service_state != state:
            call.fail(Status.FAILED_PRECONDITION, "refused in this state")
        else:
            self._event, self._next_state, self._event_call = event, next_state, call
            if not self._serving:
                self._complete()

    def _complete(self) -> None:
        event, self._event = self._event, None
        self._service_state = self._next_state
        self._last_event = event or self._last_event
        call, self._event_call = self._event_call, None
        if call:
            self._answer_state(call, event or 0)
        self._leaving |= self._service_state == STOPPED

    def _answer_state(self, call: Call, event: int) -> None:
        call.answer(pb.LifecycleState(service_state=self._service_state, event=event))

    def _attach(self, call: Call) -> None:
        """A client's lane: it is served as the supervisor is, but for baton's own methods."""
        request = call.message(pb.AttachRequest)
        most = min(request.max_clients or MAX_CLIENTS, MAX_CLIENTS)
        if self.is_stopping:
            raise CallError(Status.UNAVAILABLE, "the runner is stopping and takes no new clients")
        if len(self._clients) >= most:
            raise CallError(Status.RESOURCE_EXHAUSTED, f"{len(self._clients)} clients are attached, and {most} may be")
        if request.lane >= call.request.n_fds:
            raise CallError(Status.INVALID_ARGUMENT, "the request names a descriptor that did not come")
        try:
            lane = as_channel(call.request.take_fd(request.lane))
        except PeerFault as fault:
            raise CallError(Status.INVALID_ARGUMENT, "the lane is no connected unix stream socket") from fault
        self._n_clients += 1
        client = Connection(self._loop, lane, _ClientHost(self, self._n_clients), side=1, n_channels=1,
                            limits=self._limits, max_shared=self._max_shared, software=self._software)
        self._clients[self._n_clients] = client
        if request.epoch:
            client.send_channel(request.epoch)
        call.answer(pb.AttachResponse(client=self._n_clients))

    _for_supervisor: Dict[str, Callable[["Runner", Call], None]] = {
        "baton.Runner/Attach": _attach, "baton.Runner/Exit": _exit, "baton.Runner/Stop": _stop,
    }


class LogHandler(logging.Handler):
    """Sends the records of the logging module to the supervisor's log: logging.getLogger().addHandler(LogHandler(r)).
    The logger's name becomes the target. Exceptions are kept with their traceback."""

    def __init__(self, runner: Runner, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._runner = runner

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if record.levelno >= logging.ERROR:
                level = ERROR
            elif record.levelno >= logging.WARNING:
                level = WARNING
            else:
                level = INFO if record.levelno >= logging.INFO else DEBUG
            self._runner.log(level, self.format(record), record.name, record.pathname, record.lineno)
        except Exception:
            self.handleError(record)
