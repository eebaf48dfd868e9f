"""No other account of the machine sees a secret, or a file, of a stack that works (promise P9).

The stack is started by root and by an account that is made for the test; every process is the real
one. A corpus is labelled and a model is trained meanwhile.
"""

from __future__ import annotations

import base64
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest

from api.client import Client
from api.stack import account, up
from api.stack.account import Account
from api.stack.record import StackInfo
from jobs import database
from jobs.ledger import message_keys
from jobs.states import FINAL
from tests.api.stack.exposure import (
    CANARIES,
    NEEDED,
    STRANGER,
    processes,
    readable_by_another_account,
    secrets,
)
from tests.support.installation import jsonl, sentences
from tests.support.tiny_models import tiny_classifier
from tests.support.waiting import wait_until
from tests.workers.gang import trainer

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.getuid() != 0, reason="root alone can become another account"),
]

ROOT = Path(__file__).parents[3]
USER = "nightshift-test"
SERVERS = ("DATABASE_URL", "REDIS_URL", "OBJECT_STORE_URL")
UNTRUSTED = ("workers.training", "accelerate.commands.launch", "decoder_process")
"""Programs that run a user's model or read a user's bytes: they have no secret at all."""

LISTING = "ps -eo args; for id in $0; do cat /proc/$id/environ; done 2>/dev/null; true"


@dataclass(frozen=True)
class Place:
    """The folders of one stack, all that it may write to."""

    parent: Path

    @property
    def home(self) -> Path:
        return self.parent / "state"

    @property
    def model(self) -> Path:
        return self.parent / "model"

    @property
    def writable(self) -> list[Path]:
        return [self.parent / "account", self.parent / "tmp"]


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place(Path(tempfile.mkdtemp(prefix="nightshift-isolation-")))
    place.parent.chmod(0o755)
    tiny_classifier(place.model)
    for path in (place.model, *place.model.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # weights are written for their owner alone
    yield place
    up.stop(place.home, now=True)
    shutil.rmtree(place.parent)


@contextmanager
def root() -> Iterator[Account]:
    yield Account(uid=0, gid=0)


@contextmanager
def ordinary() -> Iterator[Account]:
    """An account without any right, removed at the end."""
    command = ["useradd", "--system", "--no-create-home", "--shell", "/bin/sh", USER]
    if shutil.which("useradd") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("an account cannot be made here")
    try:
        entry = pwd.getpwnam(USER)
        yield Account(uid=entry.pw_uid, gid=entry.pw_gid)
    finally:
        subprocess.run(["userdel", USER], check=True)


def interpreter(place: Place, who: Account) -> tuple[str, dict[str, str]]:
    """A Python that the account can run, with the packages of this one.

    That of a virtual environment may lie under a home that is closed to others: it is copied then.
    """
    variables = {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path(psycopg.__file__).parents[1]}"}
    if who.uid == 0 or account.can_reach(Path(sys.executable).resolve(), account=who):
        return sys.executable, variables
    left_out = shutil.ignore_patterns("site-packages", "test", "__pycache__", "share")
    shutil.copytree(sys.base_prefix, place.parent / "python", symlinks=True, ignore=left_out)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = {"LD_LIBRARY_PATH": str(place.parent / "python" / "lib"), "PYTHONSAFEPATH": "1"}
    return str(place.parent / "python" / "bin" / version), variables | library


@contextmanager
def started(place: Place, who: Account) -> Iterator[StackInfo]:
    """`nightshift up` by the account, with secrets of others in its environment."""
    for folder in place.writable:
        folder.mkdir(mode=0o755)
        os.chown(folder, who.uid, who.gid)
    os.chown(place.parent, who.uid, who.gid)
    python, variables = interpreter(place, who)
    names = {name for server in SERVERS for name in (server, f"NIGHTSHIFT_{server}")}
    own = {"HOME": str(place.writable[0]), "TMPDIR": str(place.writable[1]), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [python, "-m", "api.stack", "up", f"--home={place.home}", f"--allow={place.model}"],
        cwd="/",
        user=who.uid,
        group=who.gid,
        extra_groups=[],
        env={k: v for k, v in os.environ.items() if k not in names} | variables | own | CANARIES,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_until(lambda: process.poll() is not None or up.info(place.home), seconds=120)
        stack = up.info(place.home)
        assert stack is not None, process.communicate()[0]
        yield stack
    finally:
        process.terminate()
        process.communicate(timeout=120)


def submit(client: Client, place: Place) -> list[str]:
    """A bulk job and a fine-tune of some ten seconds each."""
    corpora = place.parent / "bulk.jsonl", place.parent / "labelled.jsonl"
    corpora[0].write_bytes(jsonl(sentences(4_000)))
    corpora[1].write_bytes(trainer.jsonl(trainer.labelled(240)))
    files = [client.upload(corpus)["id"] for corpus in corpora]
    for corpus in corpora:
        corpus.unlink()
    model = str(place.model)
    bulk = {"kind": "classify", "model": model, "corpus": {"file": files[0]}, "chunk_rows": 50}
    output = {"output": {"format": "jsonl"}}
    tuned = {"kind": "finetune", "model": "tuned", "base": model, "corpus": {"file": files[1]}}
    recipe = {"train": {"epochs": 100, "max_steps": 150, "batch_rows": 8, "checkpoint_steps": 100}}
    return [client.submit(spec)["id"] for spec in ({**bulk, **output}, {**tuned, **recipe})]


def assert_nothing_shows(stack: StackInfo, place: Place) -> None:
    folders = [place.home, *map(Path, stack.folders)]
    written = [path for each in place.writable for path in each.iterdir()]
    exposed = readable_by_another_account(*folders, *written)
    assert exposed == []
    values = secret_values(stack)
    for name, process in processes(stack):
        try:
            words, variables = process.cmdline(), "\n".join(process.environ().values())
        except psutil.Error:  # it has ended meanwhile
            continue
        arguments = " ".join(words)
        assert not [secret for secret, value in values.items() if value in arguments], name
        found = {secret for secret, value in values.items() if value in variables}
        untrusted = any(module in arguments for module in UNTRUSTED)
        assert found <= (set() if untrusted else NEEDED[name]), arguments
    told = seen_by_a_stranger(stack)
    assert not [secret for secret, value in values.items() if value in told]


def secret_values(stack: StackInfo) -> dict[str, str]:
    """Also the key of the messages, in the forms in which a text could have it."""
    engine = database.connect(stack.database_url, pool_size=1)
    key = message_keys.read(database.sessions(engine))
    engine.dispose()
    forms = {"hex": key.hex(), "base64": base64.b64encode(key).decode().rstrip("=")}
    return {**secrets(stack), **{f"message key, {form}": text for form, text in forms.items()}}


def seen_by_a_stranger(stack: StackInfo) -> str:
    """The arguments of all processes, and the environments of ours that a stranger can read."""
    entry = pwd.getpwnam(STRANGER)
    pids = " ".join(str(process.pid) for _, process in processes(stack))
    asked = subprocess.run(
        ["/bin/sh", "-c", LISTING, pids],
        user=entry.pw_uid,
        group=entry.pw_gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        check=True,
    )
    assert "api.server" in asked.stdout.decode()
    return asked.stdout.decode(errors="replace")


@pytest.mark.parametrize("who", [root, ordinary], ids=["root", "an ordinary account"])
def test_no_other_account_sees_a_file_or_a_secret_of_a_stack_that_works(
    place: Place, who: Callable[[], AbstractContextManager[Account]]
) -> None:
    with who() as owner, started(place, owner) as stack:
        server = account.unprivileged() if owner.uid == 0 else None  # Postgres refuses root
        accounts = {owner.uid, server.uid if server else owner.uid}
        assert {each.uids().real for _, each in processes(stack)} == accounts
        seen: set[str] = set()
        with Client(stack.api_url, stack.key) as client:
            jobs = submit(client, place)
            running = True
            while running:
                states = [client.get(job)["state"] for job in jobs]
                seen.update(f"{number} {state}" for number, state in enumerate(states))
                running = not all(state in FINAL for state in states)
                assert_nothing_shows(stack, place)
                time.sleep(0.5)
            assert states == ["succeeded", "succeeded"]
        assert {"0 running", "1 running"} <= seen
        assert_nothing_shows(stack, place)
        folders = [place.home, *map(Path, stack.folders)]
    assert readable_by_another_account(*folders) == []
