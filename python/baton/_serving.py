# SPDX-License-Identifier: Apache-2.0
"""Serving calls: methods with their handlers and the threads for them, and what is answered for any application: Ping,
Health and Reflection (docs/protocol.md, "Built-in methods"). Runner and Client have it in common.
"""

import inspect
import traceback
from typing import Any, Callable, Dict, NamedTuple, Optional

from . import baton_pb2 as pb
from ._link import Host
from ._pool import Pool
from ._wire import RESERVED, check_text, is_method_name
from .calls import LATER, Call
from .errors import CallError, Status

Handler = Callable[[Call], Any]


class Method(NamedTuple):
    """How calls of a method are served. What it takes and answers with is a full name, "": raw bytes; None: not said."""

    function: Handler
    takes_items: bool
    inline: bool
    sends_items: bool
    request: Optional[str]
    response: Optional[str]


def _type_name(message_type: Any) -> str:
    """Of a message's class; bytes are "", a name is itself."""
    if isinstance(message_type, str):
        return check_text(message_type)
    return "" if message_type in (bytes, None) else str(message_type.DESCRIPTOR.full_name)


class Serving(Host):
    """Whoever serves calls."""

    def __init__(self, workers: int) -> None:
        self._methods: Dict[str, Method] = {}
        self._default: Optional[Method] = None
        self._health: Dict[str, bool] = {}
        self._pool = Pool(workers, "baton-handler")

    # --- for the application ---

    def method(self, name: str, *, stream: bool = False, inline: bool = False, sends: bool = False, request: Any = None,
               response: Any = None) -> Callable[[Handler], Handler]:
        """Decorator: calls of that name go to the function, which gets a Call.

        What it returns is the answer: bytes, a protobuf message, a Payload, or None for nothing. A generator sends what
        it yields as items of a stream, and answers with what it returns. baton.LATER: the call is ended later, by
        Call.answer() or Call.fail(), in any thread. CallError is an answer, too; any other exception is answered
        INTERNAL and goes to the log.

        `stream`: the method takes items of the caller's. `inline`: the function runs in the loop's thread, which must
        not wait for anything; otherwise in one of the handlers' threads. For those who ask what there is: `request` and
        `response` are classes of messages, or their full names, or bytes; `sends`: it sends items, as generators do.

        ValueError: no name for a method, one that is taken, or one of baton's own.
        """
        def register(function: Handler) -> Handler:
            self.add_method(name, function, stream=stream, inline=inline, sends=sends, request=request,
                            response=response)
            return function
        return register

    def add_method(self, name: str, function: Handler, *, stream: bool = False, inline: bool = False,
                   sends: bool = False, request: Any = None, response: Any = None) -> None:
        """What method() does."""
        if not is_method_name(name) or name.startswith(RESERVED) or name in self._methods:
            raise ValueError(f"{name!r}: taken, reserved, or no name for a method")
        described = request is not None or response is not None
        self._methods[name] = Method(function, stream, inline, sends or inspect.isgeneratorfunction(function),
                                     _type_name(request) if described else None, _type_name(response))

    def default(self, function: Handler, *, stream: bool = False, inline: bool = False) -> Handler:
        """Calls of a method that nobody registered go to the function; without it they are answered UNIMPLEMENTED."""
        self._default = Method(function, stream, inline, True, None, None)
        return function

    def set_health(self, serving: bool, service: str = "") -> None:
        """What baton.Health/Check is answered for that service, or for the process as a whole. Of what nothing was said
        the whole holds, which serves unless this says otherwise. Any thread."""
        self._health[check_text(service)] = bool(serving)

    # --- for who has it ---

    def takes_calls(self) -> bool:
        """Whether it does at all."""
        return True

    def log_error(self, text: str) -> None:
        """Where the faults of handlers go."""

    def find(self, call: Call) -> Optional[Method]:
        """Who serves that call; None: nobody does, and it has been ended."""
        method = self._methods.get(call.method) if not call.method.startswith(RESERVED) else None
        if method is None and not call.method.startswith(RESERVED):
            method = self._default
        if method is None:
            Host.accept(self, call)
        else:
            call.method_takes_items = method.takes_items
        return method

    def handler(self, method: Method) -> Handler:
        """What accept() is to return for it."""
        if method.inline:
            return lambda call: self._serve(method, call)
        return lambda call: self._hand_over(method, call)

    def serve_built_in(self, call: Call) -> bool:
        """Whether it was one that is answered for everybody; then it has been ended."""
        function = self._common.get(call.method)
        if function is None:
            return False
        try:
            function(self, call)
        except CallError as error:
            call.fail(error.status, error.message)
        return True

    # --- handlers ---

    def _hand_over(self, method: Method, call: Call) -> None:
        if not self._pool.submit(self._serve, method, call):
            call.fail(Status.RESOURCE_EXHAUSTED, "no thread can be made")

    def _serve(self, method: Method, call: Call) -> None:
        """Runs a handler and ends its call."""
        try:
            result = method.function(call)
            if inspect.isgenerator(result):
                result = self._send_all(call, result)
            if result is not LATER:
                call.answer(result)
        except CallError as error:
            self._fail(call, error)
        except (Exception, SystemExit) as error:
            if not call.cancelled:
                self.log_error(f"{call.method}: {traceback.format_exc()}")
            self._fail(call, CallError(Status.INTERNAL, f"{error.__class__.__name__}: {error}"))

    @staticmethod
    def _send_all(call: Call, items: Any) -> Any:
        try:
            while True:
                try:
                    item = next(items)
                except StopIteration as end:
                    return end.value
                call.send(item)
        finally:
            items.close()

    @staticmethod
    def _fail(call: Call, error: CallError) -> None:
        if not call.ended:
            call.fail(error.status, error.message, error.details)

    # --- built-in methods ---

    def _ping(self, call: Call) -> None:
        call.answer(call.message(pb.Ping))

    def _check_health(self, call: Call) -> None:
        service = call.message(pb.HealthRequest).service
        known = not service or service in self._health or any(
            name.startswith(service + "/") for name in list(self._methods))
        if not known:
            raise CallError(Status.NOT_FOUND, f"no such service: {service}")
        serving = self.takes_calls() and self._health.get(service, self._health.get("", True))
        status = pb.HealthResponse.SERVING if serving else pb.HealthResponse.NOT_SERVING
        call.answer(pb.HealthResponse(status=status))

    def _list_methods(self, call: Call) -> None:
        call.message(pb.ReflectionRequest)
        response = pb.ReflectionResponse(others=self._default is not None)
        for name, method in list(self._methods.items()):
            described = method.request is not None
            response.methods.add(name=name, described=described, request_type=method.request or "",
                                 response_type=method.response if described else "",
                                 client_streams=described and method.takes_items,
                                 server_streams=described and method.sends_items)
        call.answer(response)

    _common: Dict[str, Callable[["Serving", Call], None]] = {
        "baton.Health/Check": _check_health, "baton.Reflection/List": _list_methods, "baton.Runner/Ping": _ping,
    }
