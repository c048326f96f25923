"""benchmark_tool.py: how the tool is called, what logs of many versions say, and what they do not."""

import dataclasses
import time

import pytest

from edgenet.device_bench.adb.benchmark_tool import (
    DELEGATES,
    LogError,
    arguments,
    delegation,
    last_words,
    parse,
    predict_arguments,
)
from edgenet.errors import DeviceError

# Output of the tool, as published with its versions; shortened to the lines that matter.
LOG_2019 = """\
STARTING!
Min num runs: [10]
Num threads: [2]
Graph: [/data/local/tmp/mobilenet_v1_1.0_224_quant.tflite]
Use nnapi : [0]
nnapi error: unable to open library libneuralnetworks.so
Loaded model /data/local/tmp/mobilenet_v1_1.0_224_quant.tflite
resolved reporter
Initialized session in 9.933ms
Running benchmark for at least 4 iterations and at least 0.5 seconds
count=7 first=127425 curr=66709 min=66709 max=127425 avg=76605.9 std=20944

Running benchmark for at least 10 iterations and at least 1 seconds
count=15 first=66753 curr=66800 min=66699 max=66838 avg=66767.6 std=39

Average inference timings in us: Warmup: 76605.9, Init: 9933, no stats: 66767.6
"""
LOG_2020_GPU = """\
STARTING!
Log parameter values verbosely: [0]
Use gpu: [1]
Loaded model /data/local/tmp/denoising.tflite
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite delegate for GPU.
INFO: Initialized OpenCL-based API.
INFO: Created 1 GPU delegate kernels.
Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.
The input model file size (MB): 7.07479
Initialized session in 870.557ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=4 first=130565 curr=120829 min=117370 max=130565 avg=122373 std=4930

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=119212 curr=118055 min=113737 max=124776 avg=119375 std=1948

Inference timings in us: Init: 870557, First inference: 130565, Warmup (avg): 122373, Inference (avg): 119375
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual.
Peak memory footprint (MB): init=6.44141 overall=64.8633
"""
LOG_2023_NNAPI = """\
    INFO: STARTING!
    INFO: Tensorflow Version : 2.15.0
    INFO: Use NNAPI: [1]
    INFO: NNAPI accelerators available: [synap-npu,nnapi-reference]
    INFO: Created TensorFlow Lite delegate for NNAPI.
    INFO: NNAPI delegate created.
    WARNING: NNAPI SL driver did not implement SL_ANeuralNetworksDiagnostic_registerCallbacks!
    VERBOSE: Replacing 31 out of 31 node(s) with delegate (TfLiteNnapiDelegate) node, yielding 1 partitions for the whole graph.
    INFO: Explicitly applied NNAPI delegate, and the model graph will be completely executed by the delegate.
    INFO: Initialized session in 66.002ms.
    INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
    type 54 str SoftmaxAxis0
    INFO: count=1 curr=637079

    INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
    INFO: count=520 first=2531 curr=2793 min=1171 max=9925 avg=1885.74 std=870

    INFO: Inference timings in us: Init: 66002, First inference: 637079, Warmup (avg): 637079, Inference (avg): 1885.74
    INFO: Memory footprint delta from the start of the tool (MB): init=7.40234 overall=7.83203
"""  # noqa: E501
LOG_2025 = """\
INFO: STARTING!
INFO: Use xnnpack: [1]
INFO: Loaded model /data/local/tmp/ssd_mobilenet_v2_coco.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: XNNPACK delegate created.
INFO: Explicitly applied XNNPACK delegate, and the model graph will be partially executed by the delegate w/ 1 delegate kernels.
INFO: The input model file size (MB): 67.3128
INFO: Initialized session in 614.333ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=1 curr=905463 p5=905463 median=905463 p95=905463
INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=900416 curr=898333 min=898007 max=906121 avg=899641 std=1549 p5=898333 median=899281 p95=904305
INFO: Inference timings in us: Init: 614333, First inference: 905463, Warmup (avg): 905463, Inference (avg): 899641
INFO: Memory footprint delta from the start of the tool (MB): init=146.363 overall=150.141
INFO: Overall peak memory footprint (MB) via periodic monitoring: 161.5
INFO: Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t                             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                 ModifyGraphWithDelegate\t  354.149\t  354.149\t 99.992%\t 99.992%\t 46900.000\t        1\tModifyGraphWithDelegate/0

INFO: Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t                             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                   TfLiteXNNPackDelegate\t  880.000\t  881.250\t 97.903%\t 97.903%\t     0.000\t        1\t[a, b]:100
\t                                 RESHAPE\t    0.005\t    0.005\t  0.001%\t 97.904%\t     0.000\t        1\t[c]:70
\t            TFLite_Detection_PostProcess\t   18.000\t   18.380\t  2.096%\t100.000%\t     0.000\t        1\t[d, e]:99

============================== Top by Computation Time ==============================
\t                             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                   TfLiteXNNPackDelegate\t  880.000\t  881.250\t 97.903%\t 97.903%\t     0.000\t        1\t[a, b]:100

Number of nodes executed: 3
Timings (microseconds): count=50 first=899000 curr=899000 min=898000 max=899900 avg=899500 std=300
Delegate internal:
============================== Run Order ==============================
\t                             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t           Convolution (NHWC, F32) IGEMM\t   40.000\t   41.500\t 12.000%\t 12.000%\t     0.000\t        1\tDelegate/Convolution (NHWC, F32) IGEMM:0

Timings (microseconds): count=50 first=1 curr=1 min=1 max=1 avg=1 std=0
"""  # noqa: E501
LOG_LITERT = """\
INFO: [litert/runtime/accelerators/auto_registration.cc:148] CPU accelerator registered.
VERBOSE: Replacing 9 out of 10 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for subgraph 0.
INFO: The input model file size (MB): 3.27774
INFO: Initialized session in 4.478ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=1055 first=1033 curr=473 min=443 max=1033 avg=465.319 std=18 p5=459 median=463 p95=478

INFO: Running benchmark for at least 1000 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=2112 first=463 curr=459 min=442 max=979 avg=464.545 std=13 p5=460 median=462 p95=478

INFO: [./litert/tools/benchmark_litert_model.h:81] \n\
========== BENCHMARK RESULTS ==========
INFO: [./litert/tools/benchmark_litert_model.h:82] Model initialization: 4.48 ms
INFO: [./litert/tools/benchmark_litert_model.h:88] Inference (avg):      0.46 ms (2112 runs)
INFO: [./litert/tools/benchmark_litert_model.h:114] Init footprint:       8.94 MB
INFO: [./litert/tools/benchmark_litert_model.h:116] Overall footprint:    11.51 MB
INFO: [./litert/tools/benchmark_litert_model.h:120] Peak memory:          20.25 MB
"""
LOG_FELL_BACK = """\
05-31 10:31:13.023 21767 21767 I tflite  : Use NNAPI: [1]
05-31 10:31:13.041 21767 21767 I tflite  : Created TensorFlow Lite delegate for NNAPI.
05-31 10:31:13.157 21767 21767 I tflite  : Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate.
05-31 10:31:13.170 21767 21767 I tflite  : Initialized session in 133.1ms.
05-31 10:31:13.171 21767 21767 I tflite  : Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
05-31 10:31:13.900 21767 21767 I tflite  : count=2 first=400000 curr=320000 min=320000 max=400000 avg=360000 std=40000
05-31 10:31:13.901 21767 21767 I tflite  : Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
05-31 10:31:30.000 21767 21767 I tflite  : count=50 first=310000 curr=310500 min=309000 max=320000 avg=311000 std=900
05-31 10:31:30.001 21767 21767 I tflite  : Inference timings in us: Init: 133100, First inference: 400000, Warmup (avg): 360000, Inference (avg): 311000
05-31 10:31:30.002 21767 21767 I tflite  : Operator-wise Profiling Info for Regular Benchmark Runs:
05-31 10:31:30.002 21767 21767 I tflite  : ============================== Run Order ==============================
05-31 10:31:30.002 21767 21767 I tflite  :                   [node type]          [first]        [avg ms]            [%]          [cdf%]          [mem KB] [times called]   [Name]
05-31 10:31:30.002 21767 21767 I tflite  :                       CONV_2D           54.571          54.571        95.055%         95.055%          1132.000         1        [a]:0
"""  # noqa: E501
VERSIONS = {
    "2019": LOG_2019,
    "2020": LOG_2020_GPU,
    "2023": LOG_2023_NNAPI,
    "2025": LOG_2025,
    "litert": LOG_LITERT,
    "logcat": LOG_FELL_BACK,
}


# ---------------------------------------------------------------------------------------------------------------- logs


@pytest.mark.parametrize(
    ("version", "count", "avg", "median", "init", "warmups", "footprint", "peak"),
    [
        ("2019", 15, 66767.6, None, 9933, 7, None, None),
        ("2020", 50, 119375, None, 870557, 4, 64.8633, None),
        ("2023", 520, 1885.74, None, 66002, 1, 7.83203, None),
        ("2025", 50, 899641, 899281, 614333, 1, 150.141, 161.5),
        ("litert", 2112, 464.545, 462, 4480, 1055, 11.51, 20.25),
        ("logcat", 50, 311000, None, 133100, 2, None, None),
    ],
)
def test_the_numbers_of_every_version_are_read(
    version: str, count: int, avg: float, median: float | None, init: float, warmups: int,
    footprint: float | None, peak: float | None,
) -> None:  # fmt: skip
    log = parse(VERSIONS[version])
    assert (log.runs.count, log.runs.avg_us, log.runs.median_us, log.init_us) == (count, avg, median, init)
    assert log.warmup is not None
    assert log.warmup.count == warmups
    assert (log.footprint_mb, log.peak_mb) == (footprint, peak)
    assert log.version == ("2.15.0" if version == "2023" else "")


def test_line_ends_of_old_shells_change_nothing() -> None:
    assert parse(LOG_2025.replace("\n", "\r\n")) == parse(LOG_2025)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_log_cut_anywhere_is_an_error_or_has_the_same_numbers(version: str) -> None:
    text = VERSIONS[version]
    whole, good = parse(text), 0
    for end in range(len(text)):
        try:
            log = parse(text[:end])
        except LogError:
            continue
        good += 1
        assert log.runs == whole.runs
        assert log.warmup == whole.warmup
        if version != "litert" or "Model initialization: 4.48 ms" in text[:end]:
            assert log.init_us == whole.init_us
    assert good < 0.7 * len(text)


@pytest.mark.parametrize(
    "number",
    [
        "119375,5",
        "119.375,5",
        "119,375",
        "119,375.5",
        "119 375",
        "nan",
        "inf",
        "-119375",
        "0x1d24f",
        "١١٩٣٧٥",
        "1,19e5",
        "",
    ],
)
def test_a_number_that_is_not_written_as_cpp_does_is_an_error(number: str) -> None:
    with pytest.raises(LogError, match=r"not a number|was cut|contradicts"):
        parse(LOG_2020_GPU.replace("avg=119375", f"avg={number}"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "\0\xff\x7fELF garbage \ufffd\n" * 50,
        "/system/bin/sh: benchmark_model: not found\n",
        "<!DOCTYPE html><html>count=50 avg=3</html>",
        "count=50 first=1 curr=1 min=1 max=1 avg=1 std=0\n",
        'CANNOT LINK EXECUTABLE "benchmark_model": library "libc++_shared.so" not found\n',
        "STARTING!\nERROR: Failed to load model x.tflite\nERROR: Benchmarking failed.\n",
    ],
)
def test_garbage_is_an_error_of_one_line(text: str) -> None:
    with pytest.raises(LogError) as e:
        parse(text)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 300


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("avg=119375 std=1948", "avg=219375 std=1948"), "contradicts itself"),
        (("Inference (avg): 119375", "Inference (avg): 109375"), "contradicts its statistics"),
        (("count=50 first=119212", "count=0 first=119212"), "no timed run"),
        (("count=50 first=119212", "curr=50 first=119212"), "ends before the timed runs"),
        (("count=4 first", "four first"), "no statistics"),
    ],
)
def test_a_log_that_contradicts_itself_is_an_error(change: tuple[str, str], says: str) -> None:
    with pytest.raises(LogError, match=says):
        parse(LOG_2020_GPU.replace(*change))


def test_runs_that_all_took_the_same_time_are_read() -> None:
    text = LOG_2020_GPU.replace(
        "count=50 first=119212 curr=118055 min=113737 max=124776 avg=119375 std=1948", "count=50 curr=119375(all same)"
    )
    runs = parse(text).runs
    assert (runs.count, runs.avg_us, runs.min_us, runs.max_us) == (50, 119375, 119375, 119375)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("INFO: a\nERROR: Failed to load model x\nERROR: Benchmarking failed.\n", "Failed to load model x"),
        ("sh: 1: /data/x: Permission denied\n", "Permission denied"),
        ("one\n\n", "one"),
        ("", ""),
    ],
)
def test_the_line_that_tells_why_is_found(text: str, says: str) -> None:
    assert says in last_words(text)


# ------------------------------------------------------------------------------------------------- profile, delegation


def test_the_profile_of_the_timed_runs_is_read_and_no_other_table() -> None:
    operators = parse(LOG_2025).operators
    assert [(o.kind, o.avg_ms, o.delegated, o.inside) for o in operators] == [
        ("TfLiteXNNPackDelegate", 881.25, True, False),
        ("RESHAPE", 0.005, False, False),
        ("TFLite_Detection_PostProcess", 18.38, False, False),
        ("Convolution (NHWC, F32) IGEMM", 41.5, True, True),
    ]
    assert [(o.kind, o.delegated) for o in parse(LOG_FELL_BACK).operators] == [("CONV_2D", False)]


def test_the_profile_of_a_gpu_names_its_own_operators() -> None:
    table = (
        "INFO: Operator-wise Profiling Info for Regular Benchmark Runs:\n"
        "============================== Run Order ==============================\n"
        "\t  [node type]\t  [first]\t [avg ms]\t [%]\t [cdf%]\t [mem KB]\t[times called]\t[Name]\n"
        "\t convolution_2d 0 -> relu 1\t 0.265\t 0.272\t 15.773%\t 15.773%\t 0.000\t 1\tDelegate/convolution_2d 0:0\n"
        "\t depth_to_space 5\t    0.629\t  0.6\n\n"
    )
    (row,) = parse(LOG_2020_GPU + table).operators  # the second line was cut
    assert (row.kind, row.delegated) == ("convolution_2d 0 -> relu 1", True)


@pytest.mark.parametrize(
    ("version", "delegate", "n_nodes", "nodes", "total", "left"),
    [
        ("2019", "cpu", 31, None, 31, {}),
        ("2020", "gpu", 64, 64, 64, {}),
        ("2023", "nnapi", None, 31, 31, {}),
        ("2025", "cpu", 100, 98, 100, {"RESHAPE": 1, "TFLite_Detection_PostProcess": 1}),
        ("litert", "cpu", 10, 9, 10, {}),
    ],
)
def test_the_delegated_nodes_are_proved_by_the_log(
    version: str, delegate: str, n_nodes: int | None, nodes: int | None, total: int, left: dict[str, int]
) -> None:
    found = delegation(parse(VERSIONS[version]), delegate, n_nodes)
    assert (found.nodes, found.total, found.left) == (nodes, total, left)
    assert bool(found.notes) == (nodes != total)


@pytest.mark.parametrize(
    ("text", "delegate"),
    [
        (LOG_FELL_BACK, "nnapi"),
        (LOG_2019, "gpu"),
        (LOG_2025, "gpu"),
        (LOG_2020_GPU.replace("Created 1 GPU", "Created 0 GPU"), "gpu"),
        ("Replacing 5 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 partitions\n" + LOG_2019, "gpu"),
        ("WARN: Unconsumed cmdline flags: --use_gpu=true\n" + LOG_2020_GPU, "gpu"),
        ("GPU acceleration is unsupported on this platform.\n" + LOG_2025, "gpu"),
    ],
)  # fmt: skip
def test_a_delegate_that_took_nothing_is_a_failure(text: str, delegate: str) -> None:
    with pytest.raises(DeviceError, match=f"the {DELEGATES[delegate].name} delegate took no node"):
        delegation(parse(text), delegate, 31)


def test_why_a_delegate_refused_is_said() -> None:
    refusal = (
        "ERROR: Following operations are not supported by GPU delegate:\n"
        "UNPACK: Operation is not supported.\n294 operations will run on the GPU, and the remaining 4 on the CPU.\n"
    )
    with pytest.raises(DeviceError, match="it refused UNPACK: Operation is not supported"):
        delegation(parse(refusal + LOG_2020_GPU.replace("Created 1 GPU", "Created 0 GPU")), "gpu", 9)
    nnapi = "WARNING: Operator QUANTIZE (v2) refused by NNAPI delegate: OP Version different from 1\n"
    assert parse(nnapi * 3 + LOG_2023_NNAPI).refused == ("QUANTIZE: OP Version different from 1",)


def test_xnnpack_that_took_nothing_is_the_cpu_and_is_said() -> None:
    text = LOG_2020_GPU.replace(
        "Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.",
        "Though XNNPACK delegate is explicitly applied, the model graph will not be executed by the delegate.",
    )
    found = delegation(parse(text), "cpu", 9)
    assert (found.nodes, found.notes) == (0, ["XNNPACK took none of 9 nodes: TFLite's own kernels were timed"])


def test_only_the_delegate_that_was_asked_for_counts() -> None:
    text = (
        "INFO: Replacing 29 out of 65 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 partitions for the "
        "whole graph.\nINFO: Replacing 25 out of 37 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 "
        "partitions for the whole graph.\n"
        + LOG_2020_GPU.replace("completely executed by the delegate", "partially executed by the delegate w/ 1 kernels")
    )  # fmt: skip
    found = delegation(parse(text), "gpu", 65)
    assert (found.nodes, found.total, found.partitions) == (29, 65, 3)
    assert found.notes == ["GPU took 29 of 65 nodes"]


def test_the_log_is_plain_values() -> None:
    found = delegation(parse(LOG_2025), "cpu", 100).to_json()
    assert all(isinstance(v, (str, int, dict, list, type(None))) for v in found.values())
    assert dataclasses.asdict(parse(LOG_2025).runs)["p95_us"] == 904305


# ------------------------------------------------------------------------------------------------------------ the call


def test_the_tool_is_called_with_what_the_plan_says() -> None:
    found = arguments("/data/g", 4, "nnapi", runs=5, min_s=0.1, max_s=12.5, warmup_s=0.5)
    assert found == [
        "--graph=/data/g", "--num_threads=4", "--num_runs=5", "--min_secs=0.1", "--max_secs=12.5", "--warmup_runs=1",
        "--warmup_min_secs=0.5", "--use_nnapi=true", "--disable_nnapi_cpu=true",
    ]  # fmt: skip
    profile = set(arguments("/data/g", 4, "nnapi", runs=5, min_s=0.1, max_s=12.5, warmup_s=0.5, profile=True))
    assert profile - set(found) == {"--enable_op_profiling=true", "--report_peak_memory_footprint=true"}
    assert "--input_layer_shape=1,20,20,3" in predict_arguments("/data/g", (1, 20, 20, 3), "/a", "/b")


def test_a_log_of_long_lines_is_read_in_the_time_that_its_length_explains() -> None:
    """Fuzzing made one of 300 lines of 5,000 digits, which took minutes."""
    long = "\n".join(
        ["9" * 5000, "\t".join(" " * 50 for _ in range(100)), "nference timings in us: Init: 5, " * 150] * 50
    )
    start = time.process_time()
    assert parse(f"{long}\n{LOG_2025}") == parse(LOG_2025)
    assert time.process_time() - start < 10
