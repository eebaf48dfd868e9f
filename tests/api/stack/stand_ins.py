"""A stack of real servers and tiny stand-ins for Nightshift's own processes.

``python -m tests.api.stack.stand_ins HOME [--allow FOLDER]`` runs it; ``BROKEN=1`` adds a service
that cannot start.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx

from api.stack import logs, up
from api.stack.failure import StackFailure
from api.stack.record import StackInfo
from api.stack.service import Service
from api.stack.services import environment, is_healthy

WORKER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
print("grandchild", child.pid, flush=True)
time.sleep(600)
"""

API = """
import http.server, os
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()
address = (os.environ["NIGHTSHIFT_API_HOST"], int(os.environ["NIGHTSHIFT_API_PORT"]))
http.server.HTTPServer(address, Health).serve_forever()
"""


def compose(stack: StackInfo) -> list[Service]:
    """A worker with a child of its own, and an API that knows only its health."""
    broken = [("broken", "print('no luck'); raise SystemExit(7)")] if os.getenv("BROKEN") else []
    scripts = [("worker", WORKER), ("api", API), *broken]
    services = {name: _script(stack, name, script) for name, script in scripts}
    port = httpx.URL(stack.api_url).port
    health = f"http://127.0.0.1:{port}/healthz"
    services["api"] = _script(stack, "api", API, health=health)
    return list(services.values())


def _script(stack: StackInfo, name: str, script: str, *, health: str | None = None) -> Service:
    return Service(
        name=name,
        command=(sys.executable, "-S", "-c", script),
        environment=environment(stack),
        log=logs.path(stack.home, name),
        probe=(lambda: is_healthy(health)) if health else None,
        grace_seconds=3.0,
    )


if __name__ == "__main__":
    folders = [Path(folder) for folder in sys.argv[3:]]
    try:
        sys.exit(up.run(Path(sys.argv[1]), compose=compose, preparations=(), allow=folders))
    except StackFailure as failure:
        sys.exit(failure.message)
