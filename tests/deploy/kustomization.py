"""What `kubectl kustomize` makes of the folders in deploy/kubernetes, as far as they use it.

Resources of files and folders, labels, the namespace, a config map of a file, and JSON patches on
objects that are named by expressions. Anything else is an error, lest a test overlook it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

Manifest = dict[str, Any]

KNOWN = {
    *("apiVersion", "kind", "namespace", "labels", "resources"),
    *("configMapGenerator", "images", "patches"),
}
UNSCOPED = {"Namespace"}


def build(folder: Path) -> list[Manifest]:
    """All objects of an overlay or base."""
    given = YAML(typ="safe").load(folder / "kustomization.yaml")
    assert set(given) <= KNOWN, f"{folder} uses {set(given) - KNOWN}"
    found = [each for name in given["resources"] for each in _resources(folder / name)]
    found += [_config_map(folder, each) for each in given.get("configMapGenerator", [])]
    for patch in given.get("patches", []):
        _patch(found, patch, folder)
    for manifest in found:
        metadata = manifest["metadata"]
        if manifest["kind"] not in UNSCOPED:
            metadata["namespace"] = given["namespace"]
        for label in given.get("labels", []):
            _label(manifest, label)
    return found


def files(folder: Path) -> set[Path]:
    """Every file that the folder uses, the files of its base too."""
    given = YAML(typ="safe").load(folder / "kustomization.yaml")
    found = {folder / "kustomization.yaml"}
    for name in given["resources"]:
        path = (folder / name).resolve()
        found |= files(path) if path.is_dir() else {path}
    found |= {folder / patch["path"] for patch in given.get("patches", []) if "path" in patch}
    for each in given.get("configMapGenerator", []):
        found |= {folder / name for name in each["envs"]}
    return found


def _resources(path: Path) -> Iterator[Manifest]:
    if path.is_dir():
        yield from build(path)
    else:
        yield from YAML(typ="safe").load_all(path)


def _config_map(folder: Path, given: dict[str, Any]) -> Manifest:
    lines = [line for name in given["envs"] for line in (folder / name).read_text().splitlines()]
    data = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    metadata = {"name": given["name"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _label(manifest: Manifest, label: dict[str, Any]) -> None:
    manifest["metadata"].setdefault("labels", {}).update(label["pairs"])
    template = manifest.get("spec", {}).get("template")
    if label.get("includeTemplates") and template:
        template["metadata"].setdefault("labels", {}).update(label["pairs"])


def _patch(manifests: list[Manifest], patch: dict[str, Any], folder: Path) -> None:
    text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text()
    target = patch["target"]
    chosen = [each for each in manifests if _is_meant(each, target)]
    assert chosen, f"{folder}: no object is {target}"
    for manifest in chosen:
        for operation in YAML(typ="safe").load(text):
            _apply(manifest, copy.deepcopy(operation))


def _is_meant(manifest: Manifest, target: dict[str, str]) -> bool:
    group = manifest["apiVersion"].rpartition("/")[0]
    return (
        target.get("kind", manifest["kind"]) == manifest["kind"]
        and target.get("group", group) == group
        and re.fullmatch(target["name"], manifest["metadata"]["name"]) is not None
    )


def _apply(manifest: Manifest, operation: dict[str, Any]) -> None:
    *way, last = operation["path"].removeprefix("/").split("/")
    place: Any = manifest
    for step in way:
        place = place[int(step) if isinstance(place, list) else step]
    match operation["op"]:
        case "add":
            place[last] = operation["value"]
        case "replace":
            assert last in place
            place[last] = operation["value"]
        case "remove":
            del place[last]
        case other:
            raise AssertionError(f"no patch has the operation {other}")
