"""arena.py: what tflite-micro prints, read."""

import pytest

from edgenet.device_bench.micro.arena import arena_bytes, reason, wants_more

LOG = """\
[RecordingMicroAllocator] Arena allocation total 1696256 bytes
[RecordingMicroAllocator] Arena allocation head 1505280 bytes
[RecordingMicroAllocator] Arena allocation tail 190976 bytes
[RecordingMicroAllocator] 'TfLiteEvalTensor data' used 3960 bytes with alignment overhead (requested 3960 bytes for 165 allocations)
[RecordingMicroAllocator] 'Persistent TfLiteTensor data' used 128 bytes with alignment overhead (requested 128 bytes for 2 tensors)
[RecordingMicroAllocator] 'Persistent buffer data' used 180860 bytes with alignment overhead (requested 180800 bytes for 165 allocations)
[RecordingMicroAllocator] 'NodeAndRegistration struct' used 4032 bytes with alignment overhead (requested 4032 bytes for 63 NodeAndRegistration structs)
"""  # noqa: E501


def test_the_parts_of_an_arena_add_up_to_it() -> None:
    found = arena_bytes(LOG)
    assert found == {
        "activations": 1505280, "tensors": 4088, "kernel data": 180860, "operators": 4032, "other": 1996,
    }  # fmt: skip
    assert sum(found.values()) == 1696256


def test_the_last_of_several_prints_counts() -> None:
    before = LOG.replace("1696256", "1696128").replace("'Persistent TfLiteTensor data' used 128", "'X' used 0")
    assert arena_bytes(before + LOG) == arena_bytes(LOG)


def test_a_part_of_a_newer_version_is_not_lost() -> None:
    log = LOG + "[RecordingMicroAllocator] 'Something new' used 500 bytes with alignment overhead\n"
    assert arena_bytes(log) == arena_bytes(LOG)  # within "other", which is what the total leaves


@pytest.mark.parametrize("log", ["", "nonsense", "Arena allocation total 5 bytes", "\x00\xff"])
def test_an_output_without_the_totals_is_no_arena(log: str) -> None:
    assert arena_bytes(log) == {}


@pytest.mark.parametrize(
    ("log", "more"),
    [
        ("Failed to resize buffer. Requested: 1505280, available 809176, missing: 696104\n", True),
        ("Failed to allocate tail memory. Requested: 64, available 0, missing: 64\n", True),
        ("Didn't find op for builtin opcode 'GELU'\n", False),
        ("", False),
    ],
)
def test_only_a_lack_of_memory_asks_for_a_larger_arena(log: str, more: bool) -> None:
    assert wants_more(log) is more


def test_a_reason_is_the_kernels_own_words_without_its_place() -> None:
    log = (
        "tensorflow/lite/micro/kernels/dequantize_common.cc:42 input->type == kTfLiteInt8 was not true.\n"
        "Node DEQUANTIZE (number 0) failed to prepare with status 1\n"
    )
    assert reason(log) == "input->type == kTfLiteInt8 was not true."
    assert reason("tensorflow/lite/micro/kernels/conv_common.cc Hybrid models are not supported.\n") == (
        "Hybrid models are not supported."
    )
    assert reason("Node X (number 3) failed to prepare with status 1\n") == ""
