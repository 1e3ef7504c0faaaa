"""Whether a replica serves: grpc.health.v1, asked of one endpoint."""

from __future__ import annotations

import asyncio

from grpc import aio
from grpc_health.v1 import health_pb2

from coordsvc.client.channels import channel_options
from coordsvc.client.options import ClientConfig

CHECK_SECONDS = 1.0


async def wait_serving(endpoint: str, poll_seconds: float) -> None:
    """Returns once `endpoint` says SERVING; cancel it to stop waiting."""
    # Somebody waits for just this moment, so it is not to be missed by a second.
    options = channel_options(ClientConfig((endpoint,)), reconnect_ms_max=100)
    async with aio.insecure_channel(endpoint, options=options) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        while True:
            try:
                answer = await check(health_pb2.HealthCheckRequest(), timeout=CHECK_SECONDS)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except aio.AioRpcError:
                pass  # It does not listen yet: that is what is waited for.
            await asyncio.sleep(poll_seconds)
