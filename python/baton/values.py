# SPDX-License-Identifier: Apache-2.0
"""baton.Values, which runners without messages of their own and the command line exchange, from and to Python's values.

As arguments: str, bytes, float (f64), int (i64), None (null); u8() ... f32() say another width; out() is a buffer that
the callee provides.
"""

from typing import Any, List, Union

from . import values_pb2
from .payload import Payload

Value = values_pb2.Value


def _signed(number: int, width: int) -> Any:
    if not -1 << width - 1 <= number < 1 << width - 1:
        raise ValueError(f"{number} does not fit i{width}")
    return Value(i=number, width=width)


def _unsigned(number: int, width: int) -> Any:
    if not 0 <= number < 1 << width:
        raise ValueError(f"{number} does not fit u{width}")
    return Value(u=number, width=width)


def i8(number: int) -> Any:
    """An argument of that type; ValueError: it does not fit. So are the others."""
    return _signed(number, 8)


def i16(number: int) -> Any:
    return _signed(number, 16)


def i32(number: int) -> Any:
    return _signed(number, 32)


def i64(number: int) -> Any:
    return _signed(number, 64)


def u8(number: int) -> Any:
    return _unsigned(number, 8)


def u16(number: int) -> Any:
    return _unsigned(number, 16)


def u32(number: int) -> Any:
    return _unsigned(number, 32)


def u64(number: int) -> Any:
    return _unsigned(number, 64)


def f32(number: float) -> Any:
    return Value(f=number)


def f64(number: float) -> Any:
    return Value(d=number)


def out(size: int) -> Any:
    """A buffer of so many zeroed bytes that the callee provides, and answers with."""
    return Value(u=size)


null = Value()


def _value(argument: Any) -> Any:
    if isinstance(argument, Value):
        return argument
    if argument is None:
        return null
    if isinstance(argument, str):
        return Value(s=argument)
    if isinstance(argument, float):
        return f64(argument)
    if isinstance(argument, int):
        return i64(argument)
    return Value(b=bytes(argument))


def to_values(*arguments: Any) -> Any:
    """A baton.Values of them: a message, as all sending functions take it."""
    return values_pb2.Values(values=[_value(argument) for argument in arguments])


def from_values(payload: Union[Payload, Any]) -> List[Any]:
    """The values of a payload, as Python's: int, float, str, bytes, None. CallError INVALID_ARGUMENT: it has none."""
    message = payload.message(values_pb2.Values) if isinstance(payload, Payload) else payload
    names = [value.WhichOneof("v") for value in message.values]
    return [getattr(value, name) if name else None for value, name in zip(message.values, names)]
