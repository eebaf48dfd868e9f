"""Every kind of reference becomes a folder; registered versions are fetched and verified."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobs import artefacts, objects
from jobs.artefacts import Artefacts
from jobs.errors import ModelFailure
from jobs.models import inspection
from jobs.progress import Beat
from jobs.settings import Settings
from tests.jobs.ledger.building import OTHER, PROJECT
from tests.jobs.registry.conftest import Registry
from tests.support.seaweed import BUCKET, S3
from tests.support.tiny_models import LABELS, tiny_classifier


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("saved") / "model")


class HeldArtefacts:
    """Artefacts whose folders are held until the test releases them."""

    def __init__(self, artefacts: Artefacts) -> None:
        self._artefacts = artefacts
        self._held = ExitStack()

    def folder(self, reference: str, *, project: str = PROJECT, beat: Beat = lambda: None) -> Path:
        artefact = self._artefacts.using(reference, project_id=project, beat=beat)
        return self._held.enter_context(artefact)

    def release(self) -> None:
        self._held.close()


@pytest.fixture
def opened(made: Registry, tmp_path: Path, saved: Path) -> Iterator[HeldArtefacts]:
    opened = opened_with(made, tmp_path, allowed=[str(saved.parent)])
    yield opened
    opened.release()


def opened_with(
    made: Registry, tmp_path: Path, *, allowed: list[str], limit: int = 10**9
) -> HeldArtefacts:
    settings = Settings(
        artefact_cache=str(tmp_path / "cache"),
        artefact_cache_bytes=limit,
        allowed_models=allowed,
    )
    return HeldArtefacts(artefacts.open(made.ledger.sessions, made.store, settings))


@pytest.fixture
def adapter(saved: Path, tmp_path: Path) -> Path:
    """An adapter's files as training writes them, without the base."""
    folder = shutil.copytree(saved, tmp_path / "adapter")
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    return folder


def refusal(opened: HeldArtefacts, reference: str, *, project: str = PROJECT) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        opened.folder(reference, project=project)
    return caught.value


def kept(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_an_allowed_folder_is_used_in_place(
    opened: HeldArtefacts, saved: Path, tmp_path: Path
) -> None:
    assert opened.folder(str(saved)) == saved.resolve()
    assert opened.folder(saved.as_uri()) == saved.resolve()
    assert not (tmp_path / "cache").exists()


def test_a_folder_off_the_allow_list_is_refused(opened: HeldArtefacts) -> None:
    assert refusal(opened, "/etc").code == "model_refused"


def test_a_registered_version_is_fetched_whole(
    made: Registry, opened: HeldArtefacts, saved: Path
) -> None:
    version = made.register("whole", folder=saved)
    made.point("whole", "champion", version)
    folder = opened.folder("whole@champion")
    assert folder == opened.folder(f"whole@{version}")
    assert inspection.inspect(folder).digest == inspection.inspect(saved).digest


def test_a_version_is_fetched_once_under_its_hash(
    made: Registry, opened: HeldArtefacts, saved: Path, tmp_path: Path
) -> None:
    made.register("cached", folder=saved)
    first = opened.folder("cached@1")
    made.register("cached", folder=saved)
    for path in Path(made.store_path).rglob("models/ours/cached/*/*"):
        path.unlink()
    again = opened_with(made, tmp_path, allowed=[])
    assert again.folder("cached@2") == first
    assert [path.name for path in kept(tmp_path)] == [first.name]
    assert len(first.name) == 64


def test_a_moved_alias_resolves_to_another_folder(
    made: Registry, opened: HeldArtefacts, saved: Path, adapter: Path
) -> None:
    made.register("moving", folder=saved)
    made.register("moving", folder=adapter)
    made.point("moving", "champion", 1)
    before = opened.folder("moving@champion")
    made.point("moving", "champion", 2)
    assert opened.folder("moving@champion") != before


@pytest.mark.parametrize("reference", ["unheard-of", "unheard-of@1", "unheard-of@best"])
def test_a_name_that_is_not_registered_is_missing(opened: HeldArtefacts, reference: str) -> None:
    assert refusal(opened, reference).code == "model_missing"


def test_another_projects_model_is_missing(
    made: Registry, opened: HeldArtefacts, saved: Path
) -> None:
    made.register("private", folder=saved)
    assert refusal(opened, "private@1", project=OTHER).code == "model_missing"


def test_a_damaged_object_is_named_and_nothing_of_the_version_is_kept(
    made: Registry, opened: HeldArtefacts, saved: Path, tmp_path: Path
) -> None:
    made.register("damaged", folder=saved)
    (path,) = Path(made.store_path).rglob("models/ours/damaged/*/model.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    failure = refusal(opened, "damaged@1")
    assert failure.code == "model_damaged"
    assert failure.message.startswith("damaged@1: model.safetensors is damaged")
    assert kept(tmp_path) == []


def test_a_version_with_missing_objects_is_damaged(
    made: Registry, opened: HeldArtefacts, saved: Path
) -> None:
    made.register("emptied", folder=saved)
    shutil.rmtree(Path(made.store_path) / "models" / "ours" / "emptied")
    assert refusal(opened, "emptied@1").code == "model_damaged"


def test_a_model_larger_than_the_whole_cache_is_refused_with_both_sizes(
    made: Registry, saved: Path, tmp_path: Path
) -> None:
    made.register("huge", folder=saved)
    failure = refusal(opened_with(made, tmp_path, allowed=[], limit=1000), "huge@1")
    assert failure.code == "model_too_large"
    assert "at most 1000 (artefact_cache_bytes)" in failure.message


def test_a_folder_stays_while_it_is_used_and_no_longer(
    made: Registry, saved: Path, tmp_path: Path
) -> None:
    other = tiny_classifier(tmp_path / "other", seed=1)
    made.register("first", folder=saved)
    made.register("second", folder=other)
    size = sum(path.stat().st_size for path in saved.iterdir())
    opened = opened_with(made, tmp_path, allowed=[], limit=size + 100)
    first = opened.folder("first@1")
    with pytest.raises(OSError, match="are in use"):
        opened.folder("second@1")
    opened.release()
    opened.folder("second@1")
    assert not first.exists()


def test_the_cache_is_in_the_users_cache_folder_unless_it_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert Settings().artefact_folder == Path("/caches/nightshift-artefacts")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert Settings().artefact_folder == Path.home() / ".cache" / "nightshift-artefacts"


def test_the_folder_of_an_adapter_links_to_its_base(
    made: Registry, opened: HeldArtefacts, saved: Path, adapter: Path
) -> None:
    made.register("ground", folder=saved)
    made.register("tuned", folder=adapter, kind="adapter", base="ground@1")
    folder = opened.folder("tuned@1")
    assert (folder / "base").resolve() == opened.folder("ground@1")
    facts = inspection.inspect(folder)
    assert (facts.id2label, facts.has_head) == (LABELS, True)


def test_an_adapter_on_an_adapter_links_down_to_the_model(
    made: Registry, opened: HeldArtefacts, saved: Path, adapter: Path
) -> None:
    made.register("upper", folder=adapter, kind="adapter", base=str(saved))
    made.register("upper", folder=adapter, kind="adapter", base="upper@1")
    folder = opened.folder("upper@2")
    assert (folder / "base" / "base").resolve() == saved.resolve()
    assert inspection.inspect(folder).digest != inspection.inspect(folder / "base").digest


def test_the_same_adapter_on_another_base_is_another_folder(
    made: Registry, opened: HeldArtefacts, saved: Path, adapter: Path
) -> None:
    other = tiny_classifier(saved.parent / "other", seed=1)
    made.register("twin", folder=adapter, kind="adapter", base=str(saved))
    made.register("twin", folder=adapter, kind="adapter", base=str(other))
    folders = [opened.folder(f"twin@{version}") for version in (1, 2)]
    assert [(folder / "base").resolve() for folder in folders] == [saved, other]
    digests = {inspection.inspect(folder).digest for folder in folders}
    assert len(digests) == 2


def test_an_adapter_whose_base_was_replaced_is_refused(
    made: Registry, opened: HeldArtefacts, saved: Path, adapter: Path
) -> None:
    base = shutil.copytree(saved, saved.parent / "exchanged")
    lineage = {"base": {"digest": inspection.inspect(base).digest}}
    made.register("picky", folder=adapter, kind="adapter", base=str(base), lineage=lineage)
    opened.folder("picky@1")
    tiny_classifier(base, seed=1)
    assert refusal(opened, "picky@1").code == "model_changed"


class Bucket:
    """A model in an S3 bucket."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"s3://{BUCKET}/{secrets.token_hex(4)}/model"
        self.store = objects.connect(self.uri)
        for path in folder.iterdir():
            self.store.put(path.name, path.read_bytes())


@pytest.fixture
def bucket(saved: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return Bucket(saved)


def test_a_folder_in_a_bucket_is_fetched(
    made: Registry, tmp_path: Path, saved: Path, bucket: Bucket
) -> None:
    opened = opened_with(made, tmp_path, allowed=[f"s3://{BUCKET}/"])
    folder = opened.folder(bucket.uri)
    assert inspection.inspect(folder).digest == inspection.inspect(saved).digest


def test_a_changed_bucket_resolves_to_another_folder(
    made: Registry, tmp_path: Path, bucket: Bucket
) -> None:
    opened = opened_with(made, tmp_path, allowed=["s3://"])
    before = opened.folder(bucket.uri)
    bucket.store.put("config.json", b"{}")
    after = opened.folder(bucket.uri)
    assert after != before
    assert (after / "config.json").read_bytes() == b"{}"


def test_a_bucket_that_changes_while_it_is_fetched_is_refused(
    made: Registry, tmp_path: Path, bucket: Bucket
) -> None:
    opened = opened_with(made, tmp_path, allowed=["s3://"])

    def change() -> None:
        bucket.store.put("config.json", secrets.token_bytes(8))

    with pytest.raises(ModelFailure) as caught:
        opened.folder(bucket.uri, beat=change)
    assert caught.value.code == "model_changed"


@pytest.mark.usefixtures("bucket")
def test_an_empty_folder_of_a_bucket_is_missing(made: Registry, tmp_path: Path) -> None:
    opened = opened_with(made, tmp_path, allowed=["s3://"])
    assert refusal(opened, f"s3://{BUCKET}/nowhere").code == "model_missing"


def test_a_bucket_off_the_allow_list_is_refused(opened: HeldArtefacts) -> None:
    assert refusal(opened, f"s3://{BUCKET}/model").code == "model_refused"
