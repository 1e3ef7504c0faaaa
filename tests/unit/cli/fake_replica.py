"""A gRPC server that answers what a test tells it to: the other side of the client's tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.message import Message
from google.rpc import status_pb2

from coordsvc.client import methods
from coordsvc.client.methods import Method
from coordsvc.errors import Applied, ErrorCode
from coordsvc.v1 import errors_pb2, watch_pb2

Answer = Callable[[Any], Message]

METHODS = {method.name: method for method in vars(methods).values() if isinstance(method, Method)}


class Refused(Exception):
    """An answer that is an error. Without `code` it has no ErrorDetail, as from a proxy."""

    def __init__(
        self,
        status: grpc.StatusCode,
        code: ErrorCode | None = None,
        applied: Applied = Applied.NO,
        text: str = "",
        **detail: Any,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.trailer = b""
        if code is not None:
            packed = PackedAny()
            packed.Pack(errors_pb2.ErrorDetail(code=int(code), applied=int(applied), **detail))
            self.trailer = status_pb2.Status(details=[packed]).SerializeToString()


def refuse(*arguments: Any, **detail: Any) -> Answer:
    def answer(request: Message) -> Message:
        raise Refused(*arguments, **detail)

    return answer


class FakeReplica(grpc.GenericRpcHandler):
    """`on` says how a method is answered: by each of the answers in turn, then by the last."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.watches: list[list[Message | Refused]] = []
        """What each Watch stream in turn says; after the last one they stay open and silent."""
        self._answers: dict[str, list[Answer]] = {}
        self._lock = threading.Lock()
        self._server = grpc.server(
            ThreadPoolExecutor(8),
            handlers=[self],
            options=[("grpc.so_reuseport", 0)],
        )
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.endpoint = f"127.0.0.1:{port}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(grace=None).wait()

    def on(self, method: Method[Any, Any], *answers: Answer) -> None:
        self._answers[method.name] = list(answers)

    def requests_of(self, method: Method[Any, Any]) -> list[Any]:
        return [request for name, request in self.requests if name == method.name]

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        if handler_call_details.method == methods.WATCH_STREAM:
            return grpc.unary_stream_rpc_method_handler(
                self._watch,
                request_deserializer=watch_pb2.WatchRequest.FromString,
                response_serializer=watch_pb2.WatchResponse.SerializeToString,
            )
        method = METHODS.get(handler_call_details.method)
        if method is None:
            return None
        name = method.name

        def handle(request: Message, context: grpc.ServicerContext) -> Message:
            with self._lock:
                self.requests.append((name, request))
                answers = self._answers.get(name) or [refuse(grpc.StatusCode.UNIMPLEMENTED)]
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
            try:
                return answer(request)
            except Refused as refused:
                _refuse(context, refused)

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=method.request_type.FromString,
            response_serializer=method.response_type.SerializeToString,
        )

    def _watch(self, request: Message, context: grpc.ServicerContext) -> Iterator[Message]:
        with self._lock:
            self.requests.append((methods.WATCH_STREAM, request))
            said = self.watches.pop(0) if self.watches else None
        for message in said or ():
            if isinstance(message, Refused):
                _refuse(context, message)
            yield message
        if said is None:
            gone = threading.Event()
            context.add_callback(gone.set)
            gone.wait()


def _refuse(context: grpc.ServicerContext, refused: Refused) -> NoReturn:
    if refused.trailer:
        context.set_trailing_metadata((("grpc-status-details-bin", refused.trailer),))
    context.abort(refused.status, str(refused))


def endpoints(replicas: Iterable[FakeReplica]) -> tuple[str, ...]:
    return tuple(replica.endpoint for replica in replicas)
