"""The cache of autotuning results: by name and by the facts they depend on, never in the way."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from jobs.settings import Settings
from tests.support.tiny_models import seeded_classifier
from workers.inference.batching.autotune_cache import TuningCache, processor

FACTS = {"model": "sha256:1", "variant": "Head", "threads": 2}

MILAN = """\
processor : 0
vendor_id : AuthenticAMD
cpu family : 25
model : 1
model name : AMD EPYC
flags : fpu sse4_2 fma avx f16c avx2

processor : 1
model name : another, that is not asked
"""


class _Layout(StrEnum):
    PLAIN = "plain"
    LAID_OUT = "laid_out"


def test_results_of_several_names_are_in_one_file(tmp_path: Path) -> None:
    TuningCache(str(tmp_path), FACTS).keep("batch_tokens", 1_024)
    TuningCache(str(tmp_path), FACTS).keep("layout", _Layout.PLAIN)
    again = TuningCache(str(tmp_path), FACTS)
    assert (again.get("batch_tokens", int), again.get("layout", _Layout)) == (1_024, _Layout.PLAIN)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_later_result_replaces_an_earlier_one(tmp_path: Path) -> None:
    cache = TuningCache(str(tmp_path), FACTS)
    cache.keep("layout", "plain")
    cache.keep("layout", "laid_out")
    assert cache.get("layout", _Layout) is _Layout.LAID_OUT


@pytest.mark.parametrize("name", FACTS)
def test_a_result_from_another_fact_is_not_used(tmp_path: Path, name: str) -> None:
    TuningCache(str(tmp_path), FACTS).keep("batch_tokens", 1_024)
    assert TuningCache(str(tmp_path), FACTS | {name: "other"}).get("batch_tokens", int) is None


def test_a_value_that_cannot_be_parsed_is_no_result(tmp_path: Path) -> None:
    cache = TuningCache(str(tmp_path), FACTS)
    cache.keep("layout", "of a later version")
    cache.keep("batch_tokens", None)
    assert (cache.get("layout", _Layout), cache.get("batch_tokens", int)) == (None, None)


@pytest.mark.parametrize("text", ["{", "[]", '{"results": 1}', '{"results": null}', "", "\0"])
def test_a_torn_file_is_written_again(tmp_path: Path, text: str) -> None:
    cache = TuningCache(str(tmp_path), FACTS)
    cache.keep("batch_tokens", 512)
    [file] = tmp_path.iterdir()
    file.write_text(text)
    assert cache.get("batch_tokens", int) is None
    cache.keep("batch_tokens", 2_048)
    assert cache.get("batch_tokens", int) == 2_048


def test_without_a_folder_nothing_is_cached() -> None:
    cache = TuningCache("", FACTS)
    cache.keep("batch_tokens", 512)
    assert cache.get("batch_tokens", int) is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = TuningCache(str(tmp_path / "file"), FACTS)
    cache.keep("batch_tokens", 512)
    assert cache.get("batch_tokens", int) is None


@pytest.mark.parametrize(
    ("there", "other"),
    [
        ("avx2", "avx2 avx512f avx512_vnni"),
        ("model : 1", "model : 17"),
        ("cpu family : 25", "cpu family : 26"),
        ("AMD EPYC", "AMD EPYC 7763"),
    ],
)
def test_processors_of_one_name_and_other_kernels_differ(there: str, other: str) -> None:
    assert processor(MILAN) != processor(MILAN.replace(there, other))


@pytest.mark.parametrize(
    ("there", "other"), [("fpu", "fpu rdpid"), ("processor : 0", "processor : 9"), ("that", "")]
)
def test_what_changes_no_kernel_makes_no_other_processor(there: str, other: str) -> None:
    assert processor(MILAN) == processor(MILAN.replace(there, other))


def test_a_models_results_depend_on_digest_variant_and_more(tmp_path: Path) -> None:
    from transformers import BertConfig  # noqa: PLC0415

    model = seeded_classifier(BertConfig(num_hidden_layers=1, vocab_size=10), seed=0)

    def cache(**changed: Any) -> TuningCache:
        given: dict[str, Any] = {"model": model, "digest": "d", "variant": "Head"}
        return TuningCache.of(Settings(calibration_folder=str(tmp_path)), **given | changed)

    cache().keep("batch_policy", "packed")
    assert cache().get("batch_policy", str) == "packed"
    for changed in ({"digest": "e"}, {"variant": "Nearest"}, {"window": 512}):
        assert cache(**changed).get("batch_policy", str) is None
