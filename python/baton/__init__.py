# SPDX-License-Identifier: Apache-2.0
"""baton in Python: write runners (Runner), and have them started and call them (Client).

A runner::

    import baton

    runner = baton.Runner()

    @runner.method("greet.Greeter/Greet")
    def greet(call):
        return b"Hello, " + call.data

    runner.run()

A client::

    with baton.Client() as client:
        greeter = client.start("./greeter.py")
        print(greeter.call("greet.Greeter/Greet", b"world", timeout=5).data)

or, of a supervisor that runs already (`baton supervise'), by name and past that supervisor::

    with baton.Client.connect() as client, client.runner("greeter").attach() as greeter:
        print(greeter.call("greet.Greeter/Greet", b"world", timeout=5).data)

Times are seconds, sizes bytes. A call that does not end with OK raises CallError, which has the status, a line for
people and typed details. Descriptors that are given to be sent are duplicated and stay the caller's; those that came
belong to the object they came with, and are closed with it unless they are taken out of it.

The protocol is the one of docs/protocol.md. Nothing but python3-protobuf is needed. There is no global state: every
Runner and Client has a loop of its own, in one thread.
"""

try:
    import google.protobuf  # noqa: F401
except ImportError as error:
    raise ImportError("baton needs protobuf for Python: Debian's package python3-protobuf, and then /usr/bin/python3, "
                      "is one way to have it") from error

from ._places import uds_path_argument
from ._wire import Limits
from .calls import LATER, Answer, Call, Request
from .client import AttachedRunner, Client, Exit, LogLine, RemoteRunner, RunnerEndedError, StartError
from .connection import MethodInfo, Methods, Peer
from .errors import CallError, ConnectionEnded, Detail, Error, Status
from .payload import Payload
from .runner import LogHandler, Runner
from .values import from_values, i8, i16, i32, i64, f32, f64, null, out, to_values, u8, u16, u32, u64

__all__ = [
    "Answer", "AttachedRunner", "Call", "CallError", "Client", "ConnectionEnded", "Detail", "Error", "Exit", "LATER",
    "Limits", "LogHandler", "LogLine", "MethodInfo", "Methods", "Payload", "Peer", "RemoteRunner", "Request", "Runner",
    "RunnerEndedError", "StartError", "Status", "f32", "f64", "from_values", "i16", "i32", "i64", "i8", "null", "out",
    "to_values", "u16", "u32", "u64", "u8", "uds_path_argument",
]
