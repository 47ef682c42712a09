"""The floor of the API: a Starlette application under uvicorn that answers from memory.

It answers the two requests of a workflow as flowd does, and nothing stands between them and what
the libraries need: no check, no store, no token, no limit.
"""

from __future__ import annotations

import multiprocessing
import socket
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flowd.prctl import end_with_parent
from scripts.benchmark.http_line import Address
from scripts.benchmark.processes import cpu_s

_fork = multiprocessing.get_context("fork")


class BareApi:
    """A process of its own that serves until the end of the block."""

    def __enter__(self) -> Self:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.address: Address = listener.getsockname()
            self._process = _fork.Process(target=_serve, args=(listener,), daemon=True)
            self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def cpu_s(self) -> float:
        assert self._process.pid is not None
        return cpu_s(self._process.pid)


def _serve(listener: socket.socket) -> None:
    end_with_parent()
    bodies: dict[str, bytes] = {}

    async def submit(request: Request) -> Response:
        execution_id = f"{len(bodies):024x}"
        bodies[execution_id] = await request.body()
        return JSONResponse({"execution_id": execution_id, "message": "Workflow accepted"})

    async def trigger(request: Request) -> Response:
        execution_id = request.path_params["execution_id"]
        assert execution_id in bodies
        return JSONResponse({"message": "Workflow triggered", "execution_id": execution_id})

    routes = [
        Route("/workflow", submit, methods=["POST"]),
        Route("/workflow/trigger/{execution_id}", trigger, methods=["POST"]),
    ]
    config = uvicorn.Config(
        Starlette(routes=routes),
        access_log=False,
        log_level="error",
        loop="uvloop",
        http="httptools",
    )
    uvicorn.Server(config).run(sockets=[listener])
