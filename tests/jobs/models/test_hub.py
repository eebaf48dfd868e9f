"""Models of a hub are downloaded, found again, or refused; a local server stands in for the hub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from jobs.models import inspection
from tests.support.tiny_models import tiny_classifier

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOCATE = """
import sys
from jobs.models import folders
from jobs.errors import ModelFailure
try:
    print(folders.locate(sys.argv[1], allowed=["hf:org/"]))
except ModelFailure as error:
    print(error.code)
"""


class HubServer(BaseHTTPRequestHandler):
    """The few routes of the hub that a download calls, for one repository, org/name, at main."""

    def __init__(self, folder: Path, *args: object, **kwargs: object) -> None:
        self.folder = folder
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/api/models/org/name/revision/main":
            self.answer(json.dumps({"id": "org/name", "sha": COMMIT, "siblings": []}).encode())
        elif path == f"/api/models/org/name/tree/{COMMIT}":
            self.answer(json.dumps(self.tree()).encode())
        elif path.startswith(f"/org/name/resolve/{COMMIT}/"):
            self.answer((self.folder / path.split(COMMIT + "/")[1]).read_bytes())
        else:
            code = "RevisionNotFound" if "/org/name/" in path else "RepoNotFound"
            self.answer(b"", status=404, code=code)

    def tree(self) -> list[dict[str, object]]:
        return [
            {
                "type": "file",
                "path": name,
                "size": size,
                "oid": hashlib.sha1(name.encode()).hexdigest(),
            }
            for name, size in sorted(
                (path.relative_to(self.folder).as_posix(), path.stat().st_size)
                for path in self.folder.rglob("*")
                if path.is_file()
            )
        ]

    def answer(self, body: bytes, *, status: int = 200, code: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_classifier(tmp_path_factory.mktemp("hub") / "name")
    for name in ("pytorch_model.bin", "modeling.py", "training_args.pt"):
        (folder / name).write_bytes(b"never")
    (folder / "onnx").mkdir()
    shutil.copy(folder / "model.safetensors", folder / "onnx")
    return folder


@pytest.fixture(scope="module")
def endpoint(repository: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(HubServer, repository))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def located(reference: str, *, endpoint: str, home: Path, offline: bool = False) -> str:
    """What another process prints: the hub's client reads its settings once, when imported."""
    hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = own | hub | ({"HF_HUB_OFFLINE": "1"} if offline else {})
    process = subprocess.run(
        [sys.executable, "-c", LOCATE, reference],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip().splitlines()[-1]


def test_a_hub_model_is_downloaded_without_pickle_or_code(
    endpoint: str, repository: Path, tmp_path: Path
) -> None:
    folder = Path(located("hf:org/name", endpoint=endpoint, home=tmp_path))
    kept = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert kept == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert inspection.inspect(folder).digest == inspection.inspect(repository).digest


def test_a_downloaded_model_is_found_again_offline(endpoint: str, tmp_path: Path) -> None:
    first = located("hf:org/name", endpoint=endpoint, home=tmp_path)
    assert located("hf:org/name", endpoint=endpoint, home=tmp_path, offline=True) == first


@pytest.mark.parametrize("reference", ["hf:org/none", "hf:org/name@v9", "hf:org/.."])
def test_a_model_that_the_hub_does_not_have_is_missing(
    endpoint: str, tmp_path: Path, reference: str
) -> None:
    assert located(reference, endpoint=endpoint, home=tmp_path) == "model_missing"


def test_offline_without_a_copy_the_hub_is_unreachable(endpoint: str, tmp_path: Path) -> None:
    code = located("hf:org/name", endpoint=endpoint, home=tmp_path, offline=True)
    assert code == "model_hub_unreachable"
