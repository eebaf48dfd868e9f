"""Memory of a batch: what runs out is tried in smaller batches, what is freed is used again."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from jobs.row_codes import RowCode
from jobs.settings import Settings
from tests.support.tiny_models import tiny_classifier
from tests.workers.inference.builders import loaded, no_beat, some_texts
from workers.inference.batching.collator import Head, ModelInputs
from workers.inference.batching.forward import RowError
from workers.inference.batching.memory import is_out_of_memory
from workers.inference.tasks.classifier import Classifier, Prediction

TOO_MUCH = 2**55


class LimitedMemoryHead:
    """A head on a device with memory for at most ``tokens`` tokens in a batch.

    Beyond that it allocates more than any machine has, and fails as a device does.
    """

    def __init__(self, inner: Head, *, tokens: int) -> None:
        self.inner = inner
        self.model = inner.model
        self.tokens = tokens

    def forward(self, inputs: ModelInputs) -> torch.Tensor:
        if inputs["attention_mask"].sum() > self.tokens:
            torch.empty(TOO_MUCH)
        return self.inner.forward(inputs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_classifier(tmp_path / "model")


def with_memory_for(folder: Path, *, tokens: int) -> Classifier:
    classifier = loaded(folder)
    classifier._runner.head = LimitedMemoryHead(classifier._runner.head, tokens=tokens)
    return classifier


COUNT_MAPPED_BLOCKS = """
import ctypes, sys
import torch
from workers.inference.batching import memory

class MallInfo2(ctypes.Structure):  # glibc's struct mallinfo2
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = MallInfo2

def mapped_blocks():
    return mallinfo2().hblks  # blocks that malloc got by mmap, which it unmaps when they are freed

if "keeping" in sys.argv:
    memory.keep_freed()
before = mapped_blocks()
block = torch.empty(30 * 2**20, dtype=torch.uint8)
print(mapped_blocks() - before)
"""


def mapped_blocks(*arguments: str) -> int:
    """Blocks that a fresh process gets from the system, not from its heap, for one of 30 MiB."""
    command = [sys.executable, "-c", COUNT_MAPPED_BLOCKS, *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other rules")
def test_what_a_batch_needs_comes_from_the_heap_which_keeps_it() -> None:
    assert mapped_blocks() == 1
    assert mapped_blocks("keeping") == 0


def test_torchs_error_of_its_allocator_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(TOO_MUCH)
    assert is_out_of_memory(caught.value)


def test_another_runtime_error_is_not_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not is_out_of_memory(caught.value)


def test_out_of_memory_makes_batches_smaller_and_loses_no_row(folder: Path) -> None:
    texts = some_texts(200)
    found = with_memory_for(folder, tokens=300).classify(texts, beat=no_beat)
    expected = loaded(folder).classify(texts, beat=no_beat)
    assert [answer.labels for answer in found if isinstance(answer, Prediction)] == [
        answer.labels for answer in expected if isinstance(answer, Prediction)
    ]


def test_the_smaller_budget_is_kept_for_the_next_chunk(folder: Path) -> None:
    classifier = with_memory_for(folder, tokens=300)
    classifier.classify(some_texts(200), beat=no_beat)
    assert 150 < classifier._runner.budget <= 300


def test_a_row_that_does_not_fit_alone_is_an_error_row(folder: Path) -> None:
    texts = ["the team", "the team won " * 20, "a phone"]
    found = with_memory_for(folder, tokens=40).classify(texts, beat=no_beat)
    assert [type(answer) for answer in found] == [Prediction, RowError, Prediction]
    assert isinstance(found[1], RowError)
    assert found[1].code is RowCode.OUT_OF_MEMORY


@pytest.mark.alone
def test_many_chunks_take_no_more_memory_than_a_few(folder: Path) -> None:
    classifier = loaded(folder, settings=Settings(worker_threads=1, batch_tokens=1_024))
    process, sizes = psutil.Process(), []
    for seed in range(50):
        classifier.classify(some_texts(200, seed=seed), beat=no_beat)
        sizes.append(process.memory_info().rss)
    assert sizes[-1] - sizes[9] < 40 * 2**20
