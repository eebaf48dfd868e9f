"""``make_secrets.py FOLDER``: random secrets for docker-compose.yml, one a file; keeps old ones.

The folder is open to its owner alone, and the files in it to everyone: Compose mounts each file by
itself with the rights that it has, and the users inside the containers are not the one outside.
"""  # noqa: INP001 - a program beside the packages, not one of them

from __future__ import annotations

import secrets
import sys
from pathlib import Path

NAMES = (
    *("postgres_password", "valkey_password", "objects_key_id", "objects_secret_key"),
    *("api_key", "metrics_token", "grafana_password"),
)
LOGIN = "flower_login"


def main(arguments: list[str]) -> int:
    """0 when every secret is there."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python deploy/make_secrets.py FOLDER\n")
        return 2
    folder = Path(arguments[0])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    texts = {name: secrets.token_hex(24) for name in NAMES}
    texts[LOGIN] = f"nightshift:{secrets.token_hex(12)}"
    for path, text in ((folder / name, text) for name, text in texts.items()):
        if not path.exists():
            path.write_text(text, encoding="ascii")  # KEDA sends it as it is, in a header
            path.chmod(0o644)
            sys.stdout.write(f"{path} is new\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
