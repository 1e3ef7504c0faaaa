"""The API's definition, held against the rest of the code and against its own rules.

What is decided in proto/ cannot be changed without breaking clients, so the rules that would be
broken by a careless edit are tests: numbers of error codes, presence, secrets, reserved numbers.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from coordsvc.core import commands
from coordsvc.errors import Applied, ErrorCode
from coordsvc.v1 import cluster_pb2, common_pb2, coordination_pb2, errors_pb2, watch_pb2

PROTO = Path(__file__).resolve().parents[2] / "proto" / "coordsvc" / "v1"
FILES = [
    module.DESCRIPTOR
    for module in (common_pb2, errors_pb2, watch_pb2, coordination_pb2, cluster_pb2)
]

INT32_FIELDS = {
    # Small by meaning, and int32 in ZooKeeper's own records too.
    "Acl.permissions",
    "ErrorDetail.operation_index",
    "Member.id",
    "Replica.id",
    "ResponseHeader.replica_id",
    "Stat.data_length",
    "Stat.num_children",
    "TransferLeadershipRequest.to_replica_id",
    "TransferLeadershipResponse.leader_id",
}
OPTIONAL_FIELDS = {
    # Null is not empty, and an unset version is not version 0.
    "Child.data",
    "CreateRequest.data",
    "CreateOperation.data",
    "GetDataResponse.data",
    "SetDataRequest.data",
    "SetDataOperation.data",
    "WatchEvent.data",
    "CheckOperation.expected_version",
    "DeleteRequest.expected_version",
    "DeleteOperation.expected_version",
    "SetDataRequest.expected_version",
    "SetDataOperation.expected_version",
    "SetAclRequest.expected_aversion",
    "ErrorDetail.operation_index",
    "WatchRequest.start_after_zxid",
    "SessionHello.start_after_zxid",
}


def messages() -> Iterator[Descriptor]:
    for file in FILES:
        yield from file.message_types_by_name.values()


def fields() -> Iterator[tuple[str, FieldDescriptor]]:
    for message in messages():
        for field in message.fields:
            yield f"{message.name}.{field.name}", field


def enums() -> Iterator[EnumDescriptor]:
    for file in FILES:
        yield from file.enum_types_by_name.values()


def as_upper_snake(camel: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", camel).upper()


def test_every_proto_file_is_looked_at() -> None:
    assert {Path(file.name).name for file in FILES} == {path.name for path in PROTO.iterdir()}


def test_error_codes_are_those_of_the_error_tree() -> None:
    prefix = "ERROR_CODE_"
    in_proto = {name.removeprefix(prefix): n for name, n in errors_pb2.ErrorCode.items()}
    # Zero has the name that enums must have for it; it stands for OK and is never sent.
    assert in_proto.pop("UNSPECIFIED") == ErrorCode.OK
    assert in_proto == {code.name: code.value for code in ErrorCode if code is not ErrorCode.OK}


def test_applied_is_that_of_the_error_tree() -> None:
    in_proto = {name.removeprefix("APPLIED_"): n for name, n in errors_pb2.Applied.items()}
    assert in_proto.pop("UNSPECIFIED") == 0
    assert in_proto == {each.name: each.value for each in Applied}


def test_create_modes_are_zookeepers_flags() -> None:
    for name, number in common_pb2.CreateMode.items():
        name = name.removeprefix("CREATE_MODE_")
        if name in {"UNSPECIFIED", "PERSISTENT"}:  # Zero must be free for "not said".
            continue
        assert getattr(commands, name) == number
    assert len(common_pb2.CreateMode.items()) == 8


def test_change_types_are_those_of_watch_events() -> None:
    for name in ("CREATED", "DELETED", "DATA_CHANGED"):
        assert watch_pb2.WatchEventType.Value(f"WATCH_EVENT_TYPE_{name}") == getattr(commands, name)


def test_enum_values_carry_their_enums_name_and_zero_is_unspecified() -> None:
    for enum in enums():
        prefix = as_upper_snake(enum.name) + "_"
        for value in enum.values:
            assert value.name.startswith(prefix), value.name
        assert enum.values_by_number[0].name == prefix + "UNSPECIFIED"


def test_numbers_are_64_bit_unless_small_by_meaning() -> None:
    int32 = {name for name, field in fields() if field.type == FieldDescriptor.TYPE_INT32}
    assert int32 == INT32_FIELDS
    allowed = {
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_BOOL,
        FieldDescriptor.TYPE_STRING,
        FieldDescriptor.TYPE_BYTES,
        FieldDescriptor.TYPE_ENUM,
        FieldDescriptor.TYPE_MESSAGE,
    }
    others = {name for name, field in fields() if field.type not in allowed}
    # Compared, never counted with; all 64 bits are used.
    assert others == {"ResponseHeader.cluster_id", "DigestResponse.digest"}


def test_presence_is_told_where_absent_is_not_zero() -> None:
    optional = {
        name
        for name, field in fields()
        if field.containing_oneof is not None and field.containing_oneof.name == f"_{field.name}"
    }
    assert optional == OPTIONAL_FIELDS


def test_names_are_no_keywords_anywhere() -> None:
    reserved = {"from", "in", "class", "global", "import"} | set(keyword.kwlist)
    assert [name for name, field in fields() if field.name in reserved] == []


def test_secrets_are_marked() -> None:
    redacted = {name for name, field in fields() if field.GetOptions().debug_redact}
    assert redacted == {"SessionCredentials.password", "AddAuthRequest.credential"}


def test_a_session_frame_is_one_list() -> None:
    """Two lists in a frame would lose the order between replies and events for ever."""
    response = coordination_pb2.SessionResponse.DESCRIPTOR
    assert [field.name for field in response.fields] == ["items"]
    assert response.fields[0].message_type.name == "SessionItem"


def test_every_unary_request_can_go_over_the_stream() -> None:
    unary = {
        method.name
        for method in coordination_pb2.DESCRIPTOR.services_by_name["Coordination"].methods
        if not method.server_streaming
    }
    operation = coordination_pb2.SessionOperation.DESCRIPTOR.oneofs_by_name["operation"]
    result = coordination_pb2.SessionReply.DESCRIPTOR.oneofs_by_name["result"]
    requests = {field.message_type.name.removesuffix("Request") for field in operation.fields}
    responses = {field.message_type.name.removesuffix("Response") for field in result.fields}
    # The hello and the ping take the place of these two.
    assert requests == unary - {"OpenSession", "Heartbeat"} | {"AddWatches", "RemoveWatches"}
    assert responses == requests | {"ErrorDetail"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (coordination_pb2.MultiRequest, {(10, 20)}),
        (coordination_pb2.MultiResponse, {(10, 11)}),
    ],
)
def test_reserved_numbers(message: type, expected: set[tuple[int, int]]) -> None:
    described = descriptor_pb2.DescriptorProto()
    message.DESCRIPTOR.CopyToProto(described)  # type: ignore[attr-defined]
    assert {(each.start, each.end) for each in described.reserved_range} == expected


def test_an_absent_version_and_null_data_survive_the_wire() -> None:
    request = coordination_pb2.SetDataRequest(path="/a")
    decoded = coordination_pb2.SetDataRequest.FromString(request.SerializeToString())
    assert not decoded.HasField("expected_version")
    assert not decoded.HasField("data")
    request.expected_version, request.data = 0, b""
    decoded = coordination_pb2.SetDataRequest.FromString(request.SerializeToString())
    assert decoded.HasField("expected_version")
    assert decoded.HasField("data")


def test_everything_has_a_comment() -> None:
    """The comments are the API's reference: each field, value and call says what it means. Not
    asked of the messages that a call is named after, nor of a choice that its oneof explains."""
    declaration = re.compile(r"(?:optional |repeated )?[\w.]+ (\w+) = \d+|(\w+) = \d+|rpc \w+")
    for path in sorted(PROTO.glob("*.proto")):
        before, in_oneof = "", False
        for number, raw in enumerate(path.read_text().splitlines(), 1):
            line = raw.strip()
            if line.startswith("oneof "):
                assert before.startswith("//"), f"{path.name}:{number} has no comment: {line}"
                in_oneof = True
            elif line == "}":
                in_oneof = False
            elif declaration.match(line) and not line.startswith("option ") and not in_oneof:
                assert before.startswith("//"), f"{path.name}:{number} has no comment: {line}"
            before = line
