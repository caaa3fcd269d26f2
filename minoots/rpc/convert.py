"""Between messages and the JSON of REST: one way for each direction, driven by the messages' own descriptors.

A field's JSON name is its camelCase form, which is REST's name for it; so there is no list of fields to keep.
"""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from minoots.domain.json_text import escape_step
from minoots.errors import InvalidTimer
from minoots.rpc.pb import timer_pb2 as pb

M = TypeVar("M", bound=Message)
_Setter = Callable[[Any, Any], None]

STATUS_NUMBERS: Final[Mapping[str, pb.TimerStatus.ValueType]] = {
    "scheduled": pb.TIMER_STATUS_SCHEDULED,
    "fired": pb.TIMER_STATUS_FIRED,
    "cancelled": pb.TIMER_STATUS_CANCELLED,
    "failed": pb.TIMER_STATUS_FAILED,
    "settled": pb.TIMER_STATUS_SETTLED,
    "paused": pb.TIMER_STATUS_PAUSED,
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Up to here a double is every whole number.
_WHOLE_MOST = 2**53
_INTEGERS = {FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64}


def show(kind: type[M], shown: Mapping[str, Any]) -> M:
    """JSON as REST shows it as a message; what the message has no field for is left out, null is absent."""
    made = kind()
    _fill(made, shown)
    return made


def show_struct(kind: type[M], shown: msgspec.Struct) -> M:
    """A timer or firing of the domain as a message."""
    # json, not msgspec, to read it: plain SQL can write numbers beyond the doubles into a timer.
    return show(kind, json.loads(msgspec.json.encode(shown)))


def _fill(message: Message, shown: Mapping[str, Any]) -> None:
    for name, setter in _setters(message.DESCRIPTOR):
        value = shown.get(name)
        if value is not None:
            setter(message, value)


@lru_cache(maxsize=64)
def _setters(descriptor: Descriptor) -> list[tuple[str, _Setter]]:
    return [(field.json_name, _setter(field)) for field in descriptor.fields]


def _setter(field: FieldDescriptor) -> _Setter:
    """How the field is filled from its JSON."""
    name = field.name
    if field.enum_type is not None:
        return lambda made, value: setattr(made, name, STATUS_NUMBERS.get(value, pb.TIMER_STATUS_UNSPECIFIED))
    if field.message_type is None:
        return _scalar_setter(field)
    if field.message_type.GetOptions().map_entry:
        return lambda made, value: getattr(made, name).update(value)
    if field.is_repeated:
        return lambda made, value: _fill_list(getattr(made, name), value)
    filler: _Setter = _FILLERS.get(field.message_type.full_name, _fill_present)
    return lambda made, value: filler(getattr(made, name), value)


def _scalar_setter(field: FieldDescriptor) -> _Setter:
    name = field.name
    if field.type in _INTEGERS:
        # jsonb keeps 2.0 as it was written.
        return lambda made, value: setattr(made, name, int(value))
    return lambda made, value: setattr(made, name, value)


def _fill_list(made: Any, shown: list[Mapping[str, Any]]) -> None:
    for item in shown:
        _fill(made.add(), item)


def _fill_present(message: Message, shown: Mapping[str, Any]) -> None:
    message.SetInParent()
    _fill(message, shown)


def _fill_instant(made: Timestamp, text: str) -> None:
    made.FromJsonString(text)


def _fill_object(made: Struct, shown: Mapping[str, Any]) -> None:
    made.SetInParent()
    for key, value in shown.items():
        _fill_value(made.fields[key], value)


def _fill_value(made: Value, value: Any) -> None:
    if value is None:
        made.null_value = NULL_VALUE
    elif isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, str):
        made.string_value = value
    elif isinstance(value, int | float):
        made.number_value = _double(value)
    elif isinstance(value, dict):
        made.struct_value.SetInParent()
        _fill_object(made.struct_value, value)
    else:
        made.list_value.SetInParent()
        for item in value:
            _fill_value(made.list_value.values.add(), item)


_FILLERS: Final[dict[str, _Setter]] = {
    "google.protobuf.Timestamp": _fill_instant,
    "google.protobuf.Struct": _fill_object,
    "google.protobuf.Value": _fill_value,
}


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def ask(message: Message) -> dict[str, Any]:
    """A message of a request as the JSON that REST takes; absent fields are left out.

    Raises InvalidTimer, with a pointer from this message on, for a number that JSON has not.
    """
    asked: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        # A required field has no presence of its own: its default says that it was not given.
        if message.HasField(field.name) if field.has_presence else value or field.is_repeated:
            asked[field.json_name] = _below(field.json_name, _asked, value, field)
    return asked


def _asked(value: Any, field: FieldDescriptor) -> Any:
    if field.is_repeated:
        return [_below(str(index), ask, item) for index, item in enumerate(value)]
    if field.message_type is None:
        return plain_number(value) if isinstance(value, float) else value
    if isinstance(value, Struct):
        return plain_object(value)
    return plain_value(value) if isinstance(value, Value) else ask(value)


def plain_object(value: Struct) -> dict[str, Any]:
    """A Struct as JSON; raises InvalidTimer for NaN and infinities."""
    return {key: _below(key, plain_value, inner) for key, inner in value.fields.items()}


def plain_value(value: Value) -> Any:
    """A Value as JSON; one in which nothing is set is null."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return plain_object(value.struct_value)
    if kind == "list_value":
        return [_below(str(index), plain_value, inner) for index, inner in enumerate(value.list_value.values)]
    if kind is None or kind == "null_value":
        return None
    return plain_number(value.number_value) if kind == "number_value" else getattr(value, kind)


def plain_number(value: float) -> int | float:
    """A whole double as an integer: that is what was meant where REST wants one, and JSON holds it to be the same."""
    if not math.isfinite(value):
        raise InvalidTimer.at("", "JSON has no number that is infinite or none at all; send it as text")
    return int(value) if value.is_integer() and abs(value) <= _WHOLE_MOST else value


def _below(step: str, read: Callable[..., Any], *value: Any) -> Any:
    try:
        return read(*value)
    except InvalidTimer as refused:
        raise refused.below(f"/{escape_step(step)}") from None


def read_instant(value: Timestamp) -> datetime:
    """As aware UTC; finer than microseconds is cut. ValueError when it names no instant before the year 10000."""
    if not 0 <= value.nanos < 1_000_000_000:
        raise ValueError("an instant's nanos are from 0 to 999,999,999")
    try:
        return _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
    except OverflowError:
        raise ValueError(f"{value.seconds} seconds since 1970 is no instant from year 1 to 9999") from None
