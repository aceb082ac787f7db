"""FastAPI and uvicorn with nothing behind them: answers each question for a job with the same JSON.

Says `listens on URL` once it does, and goes on until it is told to stop.
"""

import argparse
import json
import socket
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

JOBS = "/api/v1/inference/batch"


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare_app", description=__doc__)
    parser.add_argument("answer", type=Path, help="JSON that is answered")
    answer = json.loads(parser.parse_args().answer.read_text())
    app = FastAPI()

    @app.get(f"{JOBS}/{{job_id}}")
    async def show(job_id: str) -> dict[str, Any]:
        return answer

    listening = socket.create_server(("127.0.0.1", 0))
    print(f"listens on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    # As Penstock has uvicorn; a connection that is kept is not closed under a request.
    config = uvicorn.Config(
        app, http="httptools", loop="uvloop", ws="none", lifespan="off", access_log=False, timeout_keep_alive=75
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
