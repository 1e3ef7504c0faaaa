"""What a unary call costs before a coordination service is behind it: one server of grpc.aio that
keeps each value in a dict, under the load of row W5, with the same generator.

    make bench-peers
    .venv/bin/python -m bench.unary_floor

It prints the rate, and the microseconds of the server's CPU for a call.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

import uvloop
from grpc import aio

from bench.go_programs import GRPC_LOAD
from bench.load import SET, Load
from bench.side_by_side import generate
from coordsvc.v1 import coordination_pb2 as pb
from coordsvc.v1 import coordination_pb2_grpc

SECONDS = 5.0
RUNS = 3
CONNECTIONS = (128, 12)
DATA_BYTES = 100


class _Bare(coordination_pb2_grpc.CoordinationServicer):
    """As much as the generator asks for and checks: values, and how often each was set."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[bytes, int]] = {}

    async def Create(self, request: pb.CreateRequest, context: object) -> pb.CreateResponse:
        del context
        self._values[request.path] = request.data, 0
        return pb.CreateResponse(path=request.path)

    async def SetData(self, request: pb.SetDataRequest, context: object) -> pb.SetDataResponse:
        del context
        version = self._values[request.path][1] + 1
        self._values[request.path] = request.data, version
        answer = pb.SetDataResponse()
        answer.stat.version = version
        return answer

    async def GetData(self, request: pb.GetDataRequest, context: object) -> pb.GetDataResponse:
        del context
        data, version = self._values[request.path]
        answer = pb.GetDataResponse(data=data)
        answer.stat.version = version
        return answer


async def _serve() -> None:
    server = aio.server()
    coordination_pb2_grpc.add_CoordinationServicer_to_server(_Bare(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


def main() -> int:
    if why := GRPC_LOAD.why_not():
        print(f"bench.unary_floor: {why}", file=sys.stderr)
        return 2
    GRPC_LOAD.prepare()
    with subprocess.Popen(
        [sys.executable, "-m", "bench.unary_floor", "serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        endpoint = f"127.0.0.1:{int(server.stdout.readline())}"
        command = (str(GRPC_LOAD.file), "-system", "coordsvc")
        for connections in CONNECTIONS:
            for run in range(RUNS):
                path = f"/floor-{connections}-{run}-{time.time_ns()}"
                load = Load(
                    [endpoint], [endpoint], path, SET, connections, 1, DATA_BYTES, 1.0, SECONDS
                )
                made = generate(command, load, {1: server.pid})
                operations = made.outcome.operations
                print(
                    f"{connections} connections, 1 in flight on each: "
                    f"{operations / made.outcome.seconds:,.0f} calls/s, "
                    f"{1e6 * made.cpu_s[1] / operations:.0f} us of the server's CPU a call"
                )
        server.stdin.close()
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        uvloop.run(_serve())
    else:
        sys.exit(main())
