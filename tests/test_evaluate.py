"""evaluate.py: the statistics by numbers from books, the counting on networks whose answers are known."""

import importlib
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from edgenet.errors import DeviceError
from edgenet.evaluate import Candidate, centred_logits, evaluate, mcnemar, paired_difference, sqnr_db, wilson
from edgenet.export import Network
from edgenet.export.tflite_file import write_tflite
from edgenet.farm import answers as blocks
from edgenet.images import open_images, stream
from edgenet.results import NO_ANSWER, Confusion, ImageSet, Results, Warning
from helpers import tiny

module = importlib.import_module("edgenet.evaluate")  # `edgenet.evaluate` is the function of the package

# ------------------------------------------------------------------------------------------------------ statistics


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_intervals_of_newcombe(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize("n", [1, 7, 100, 5000])
def test_wilson_gives_the_intervals_of_scipy(n: int) -> None:
    from scipy import stats

    for hits in {0, 1, n // 3, n // 2, n - 1, n}:
        theirs = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
        assert wilson(hits, n) == pytest.approx((theirs.low, theirs.high), abs=1e-7)


def test_wilson_is_symmetric_and_stays_within_0_and_1() -> None:
    for n in (1, 7, 500):
        for hits in {0, 1, n // 2, n}:
            low, high = wilson(hits, n)
            assert 0 <= low <= hits / n <= high <= 1
            assert wilson(n - hits, n) == (pytest.approx(1 - high), pytest.approx(1 - low))


def test_the_interval_of_a_paired_difference_is_agresti_and_mins() -> None:
    """Two surveys of 1600 (Agresti): 150 changed one way, 86 the other; Wald's interval is .0213 to .0587."""
    from scipy import stats

    low, high = paired_difference(150, 86, 1600)
    assert (low, high) == (pytest.approx(0.0213, abs=2e-4), pytest.approx(0.0587, abs=2e-4))
    b, c, m = 150.5, 86.5, 1602
    changes = np.repeat([1.0, -1.0, 0.0], [301, 173, 2 * (1602 - 237)])  # half a pair in each cell, all of it twice
    theirs = stats.norm.interval(0.95, (b - c) / m, np.std(changes) / np.sqrt(m))
    assert (low, high) == pytest.approx(theirs, abs=1e-7)


def test_a_paired_difference_without_changes_is_zero_give_or_take() -> None:
    low, high = paired_difference(0, 0, 500)
    assert low == -high
    assert 0 < high < 0.01
    assert paired_difference(3, 8, 500) == tuple(-v for v in reversed(paired_difference(8, 3, 500)))


@pytest.mark.parametrize(
    ("fixed", "broken", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (3, 5, 0.7265625), (2, 10, 2 * (1 + 12 + 66) / 4096), (6, 6, 1.0)],
)
def test_mcnemar_is_the_exact_binomial_test(fixed: int, broken: int, p: float) -> None:
    assert mcnemar(fixed, broken) == pytest.approx(p, rel=1e-9)
    assert mcnemar(broken, fixed) == mcnemar(fixed, broken)


def test_mcnemar_is_the_binomial_test_of_scipy() -> None:
    from scipy import stats

    pairs = [*product(range(12), range(12)), (31, 60), (470, 530)]
    for fixed, broken in pairs[1:]:  # SciPy has no test of nothing
        theirs = stats.binomtest(fixed, fixed + broken).pvalue
        assert mcnemar(fixed, broken) == pytest.approx(theirs, rel=1e-9)


def test_mcnemar_does_not_overflow_on_many_pictures() -> None:
    assert mcnemar(4000, 6000) == pytest.approx(0, abs=1e-80)
    assert mcnemar(5000, 5000) == 1.0


def test_sqnr_is_ten_times_the_logarithm_of_the_ratio() -> None:
    assert sqnr_db(100.0, 1.0) == pytest.approx(20.0)
    assert sqnr_db(1.0, 2.0) == pytest.approx(-3.0103, abs=1e-4)
    assert sqnr_db(1.0, 0.0) is None  # nothing differs
    assert sqnr_db(0.0, 1.0) is None


def test_probabilities_and_logits_give_the_same_centred_logits() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 3, (6, 10))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(centred_logits(p), z - z.mean(axis=1, keepdims=True), atol=1e-9)
    np.testing.assert_allclose(centred_logits(z), z - z.mean(axis=1, keepdims=True), atol=1e-9)


def test_a_probability_of_zero_gives_a_finite_logit() -> None:
    assert np.isfinite(centred_logits(np.array([[1.0, 0.0, 0.0]], np.float32))).all()


# ----------------------------------------------------------------------------------------- counting, by scripted files


class ScriptedWorker:
    """Answers with given outputs in the place of a file; the file's stem picks them."""

    outputs: ClassVar[dict[str, np.ndarray]] = {}
    dies_after: ClassVar[dict[str, int]] = {}
    output_dtype = "float32"

    def __init__(self, path: Path, threads: int = 1, shared: object = None) -> None:
        if path.stem == "missing":
            raise DeviceError("the runtime is not installed")
        self.name, self.done, self.calls = path.stem, 0, 0
        self.info = type("Info", (), {"runtime": "litert", "io_dtype": "float32", "output_dtype": self.output_dtype})()

    def __enter__(self) -> "ScriptedWorker":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def predict(self, batch: np.ndarray) -> np.ndarray:
        if self.calls == self.dies_after.get(self.name, -1):
            raise DeviceError("killed by SIGSEGV")
        self.calls += 1
        y = self.outputs[self.name][self.done : self.done + len(batch)]
        self.done += len(batch)
        return y


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    """Ten pictures, two of each class, in order of their class: labels 0 0 1 1 2 2 3 3 4 4."""
    tiny.make_folder(tmp_path / "photos", per_class=2)
    ids = tuple(f"class {i}" for i in range(5))
    return open_images(tmp_path / "photos", ids, ids)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedWorker]:
    import edgenet.device_bench

    worker = type("Worker", (ScriptedWorker,), {"outputs": {}, "dies_after": {}})
    monkeypatch.setattr(edgenet.device_bench, "Worker", worker)
    return worker


def answers(*classes: int, sure: float = 0.9) -> np.ndarray:
    """Probabilities whose top-1 are `classes`; the rest is shared, the higher index a bit less."""
    y = np.full((len(classes), 5), (1 - sure) / 4, np.float32) - np.arange(5, dtype=np.float32) * 1e-4
    y[np.arange(len(classes)), classes] = sure
    return y


def run(images: ImageSet, *names: str, reference: str | None = None):
    candidates = [Candidate(n, Path(f"{n}.tflite"), n * 3) for n in names]
    return evaluate(candidates, images, tiny.PREPROCESSING, reference=reference)


RIGHT = (0, 0, 1, 1, 2, 2, 3, 3, 4, 4)


def test_top1_agreement_and_flips_are_counted_by_hand(images: ImageSet, scripted: type[ScriptedWorker]) -> None:
    #                       0  0  1  1  2  2  3  3  4  4
    scripted.outputs["a"] = answers(0, 0, 1, 1, 2, 2, 3, 0, 0, 0)  # 7 right
    scripted.outputs["b"] = answers(0, 1, 1, 2, 2, 2, 3, 3, 0, 1)  # 2 broken, 1 fixed, 1 changed and wrong both times
    evaluations, failures = run(images, "a", "b", reference="a")
    a, b = evaluations
    assert failures == []
    assert (a.top1, a.n_images, a.n_labelled, a.reference, a.agreement) == (0.7, 10, 10, None, None)
    assert (b.top1, b.reference, b.artifact_sha256) == (0.6, "a", "bbb")
    assert b.agreement == 0.6
    assert (b.flips_broken, b.flips_fixed) == (2, 1)
    assert b.top1_drop == pytest.approx(0.1)
    assert b.mcnemar_p == mcnemar(1, 2)
    assert b.top1_ci95 == wilson(6, 10)
    assert b.top1_drop_ci95 == paired_difference(2, 1, 10)
    assert [Path(f.file).parent.name for f in b.flips] == ["class_0", "class_1", "class_3", "class_4"]  # broken first
    assert [(f.reference_class, f.artifact_class) for f in b.flips] == [(0, 1), (1, 2), (0, 3), (0, 1)]


def test_where_a_folder_stands_for_several_classes_each_of_them_is_right(
    scripted: type[ScriptedWorker], tmp_path: Path
) -> None:
    tiny.make_folder(tmp_path / "photos", per_class=2)
    (tmp_path / "photos" / "class_3").rename(tmp_path / "photos" / "class_5")  # class_5 stands for 3, 5 and 6
    (tmp_path / "photos" / "class-map.txt").write_text("class_5 = class 3, class 5, class 6")
    ids = tuple(f"class {i}" for i in range(7))
    images = open_images(tmp_path / "photos", ids, ids)
    assert images.labels == (0, 0, 1, 1, 2, 2, 4, 4, 3, 3)

    def probabilities(*classes: int) -> np.ndarray:
        return 0.05 + 0.65 * np.eye(7, dtype=np.float32)[list(classes)]

    #                            0  0  1  1  2  2  4  4  3  3
    scripted.outputs["a"] = probabilities(0, 0, 1, 1, 2, 6, 4, 4, 5, 3)
    scripted.outputs["b"] = probabilities(0, 0, 1, 1, 2, 3, 4, 4, 6, 0)
    evaluations, _ = run(images, "a", "b", reference="a")
    a, b = evaluations
    assert (a.top1, b.top1) == (0.9, 0.8)
    assert (b.flips_broken, b.flips_fixed, b.agreement) == (1, 0, 0.7)  # agreement is of the classes themselves
    assert [(f.label, f.reference_class, f.artifact_class) for f in b.flips] == [(3, 3, 0)]  # 5 to 6 is no change
    warning = Warning(
        "class-map", "right is each class that the folder stands for in the class map: class_5 for 3 classes", 1
    )
    assert warning in a.warnings


def test_top5_of_five_classes_is_everything_and_ties_go_to_the_lower_index(
    images: ImageSet, scripted: type[ScriptedWorker]
) -> None:
    scripted.outputs["tied"] = np.full((10, 5), 0.2, np.float32)
    (e,), _ = run(images, "tied")
    assert e.top5 == 1.0
    assert e.top1 == 0.2  # class 0, always


def test_top5_of_tied_outputs_does_not_count_more_than_five(scripted: type[ScriptedWorker], tmp_path: Path) -> None:
    tiny.make_folder(tmp_path / "photos", per_class=2)
    ids = tuple(f"class {i}" for i in range(9))
    images = open_images(tmp_path / "photos", ids, ids)
    scripted.outputs["tied"] = np.tile(np.array([0, 1, 1, 1, 0, 1, 1, 0, 0], np.float32) / 5, (10, 1))
    (e,), _ = run(images, "tied")
    assert e.top5 == 0.6  # classes 1, 2, 3 of the five 1 2 3 5 6; 0 and 4 are not among them


def test_the_flips_that_are_kept_are_those_the_reference_was_surest_of(
    images: ImageSet, scripted: type[ScriptedWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FLIPS", 3)
    scripted.outputs["a"] = np.stack([answers(c, sure=0.3 + 0.05 * i)[0] for i, c in enumerate(RIGHT)])
    scripted.outputs["b"] = answers(*[(c + 1) % 5 for c in RIGHT])
    _, b = run(images, "a", "b", reference="a")[0]
    assert b.flips_broken == 10
    assert [round(f.reference_confidence, 2) for f in b.flips] == [0.75, 0.7, 0.65]


def test_sqnr_is_that_of_the_logits(images: ImageSet, scripted: type[ScriptedWorker]) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (10, 5)).astype(np.float32)
    noise = rng.normal(0, 0.1, (10, 5)).astype(np.float32)
    scripted.outputs |= {"a": z, "b": z + noise, "c": z + 5.0}
    _, b, c = run(images, "a", "b", "c", reference="a")[0]
    s, n = (v - v.mean(axis=1, keepdims=True) for v in (z, noise))
    assert b.sqnr_db == pytest.approx(10 * np.log10((s**2).sum() / (n**2).sum()), abs=1e-3)
    assert c.sqnr_db is None or c.sqnr_db > 120  # a constant is forgotten by softmax


def test_an_eight_bit_output_says_so_and_gets_no_sqnr(images: ImageSet, scripted: type[ScriptedWorker]) -> None:
    scripted.outputs |= {"a": answers(*RIGHT), "b": answers(*RIGHT, sure=0.5)}
    scripted.output_dtype = "uint8"
    _, b = run(images, "a", "b", reference="a")[0]
    assert b.sqnr_db is None
    assert [w.code for w in b.warnings if "8 bits" in w.text] == ["8-bit-output"]


def test_unlabelled_pictures_have_agreement_and_no_accuracy(
    images: ImageSet, scripted: type[ScriptedWorker], tmp_path: Path
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, file in enumerate(images.files):
        Path(file).rename(flat / f"{i}.jpg")
    scripted.outputs |= {"a": answers(*RIGHT), "b": answers(*RIGHT[:9], 0)}
    _, b = run(open_images(flat, (), ()), "a", "b", reference="a")[0]
    assert (b.n_labelled, b.top1, b.top5, b.top1_drop, b.mcnemar_p, b.flips_fixed) == (0, None, None, None, None, None)
    assert b.agreement == 0.9
    assert b.warnings == (Warning("no-labels", "no labels: agreement is measured, accuracy is not"),)


# ------------------------------------------------------------------------------------- classes, and what is no answer


def test_right_answers_flips_and_confusions_are_counted_by_class(
    images: ImageSet, scripted: type[ScriptedWorker]
) -> None:
    #                       0  0  1  1  2  2  3  3  4  4
    scripted.outputs["a"] = answers(0, 0, 1, 1, 2, 2, 3, 0, 0, 0)
    scripted.outputs["b"] = answers(0, 1, 1, 2, 2, 2, 3, 3, 0, 0)
    a, b = run(images, "a", "b", reference="a")[0]
    assert a.classes == {"0": (2, 2), "1": (2, 2), "2": (2, 2), "3": (2, 1), "4": (2, 0)}
    assert a.class_flips == {}
    assert a.confusions == (Confusion(4, 0, 2), Confusion(3, 0, 1))
    assert b.classes == {"0": (2, 1), "1": (2, 1), "2": (2, 2), "3": (2, 2), "4": (2, 0)}
    assert b.class_flips == {"0": (0, 1), "1": (0, 1), "3": (1, 0)}  # fixed, broken
    assert b.confusions == (Confusion(4, 0, 2), Confusion(0, 1, 1), Confusion(1, 2, 1))


def test_the_counts_of_the_classes_add_up_to_those_of_all(
    tiny_files: dict[str, Path], tiny_images: tuple[ImageSet, ImageSet]
) -> None:
    candidates = [Candidate(p, path) for p, path in tiny_files.items()]
    evaluations, _ = evaluate(candidates, tiny_images[1], tiny.PREPROCESSING, reference="float32")
    for e in evaluations:
        assert sum(n for n, _ in e.classes.values()) == e.n_labelled
        assert sum(right for _, right in e.classes.values()) == round((e.top1 or 0) * e.n_labelled)
        assert sum(fixed for fixed, _ in e.class_flips.values()) == (e.flips_fixed or 0)
        assert sum(broken for _, broken in e.class_flips.values()) == (e.flips_broken or 0)


def test_each_class_that_a_folder_stands_for_is_right_and_counted_under_its_label(
    images: ImageSet, scripted: type[ScriptedWorker]
) -> None:
    mapped = replace(images, groups={"warm": (0, 3)}, labels=(0, 0, 1, 1, 2, 2, 0, 0, 4, 4))
    scripted.outputs["a"] = answers(3, 0, 1, 1, 2, 2, 3, 4, 4, 3)
    scripted.outputs["b"] = answers(0, 0, 1, 1, 2, 2, 3, 3, 4, 4)
    a, b = run(mapped, "a", "b", reference="a")[0]
    assert a.classes == {"0": (4, 3), "1": (2, 2), "2": (2, 2), "4": (2, 1)}
    assert a.confusions == (Confusion(0, 4, 1), Confusion(4, 3, 1)), "with the class that was answered"
    assert b.class_flips == {"0": (1, 0), "4": (1, 0)}, "from one right class to another is no flip"
    assert (a.top1, b.top1) == (0.8, 1.0)


def test_only_the_most_frequent_confusions_are_kept(
    images: ImageSet, scripted: type[ScriptedWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CONFUSIONS", 1)
    scripted.outputs["a"] = answers(1, 0, 1, 1, 2, 2, 3, 3, 0, 0)
    (e,), _ = run(images, "a")
    assert e.confusions == (Confusion(4, 0, 2),)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.filterwarnings("error")
def test_an_answer_with_a_number_that_is_not_finite_is_neither_right_nor_the_references(
    bad: float, images: ImageSet, scripted: type[ScriptedWorker]
) -> None:
    scripted.outputs |= {"a": answers(*RIGHT), "b": answers(*RIGHT), "c": answers(*RIGHT, sure=0.5)}
    scripted.outputs["b"][3, :2] = bad  # a picture of class 1
    scripted.outputs["a"][3, 0] = scripted.outputs["a"][8, 4] = bad
    a, b, c = run(images, "a", "b", "c", reference="a")[0]
    assert (a.top1, a.top5, a.nonfinite_outputs, a.nonfinite_images) == (0.8, 0.8, 2, 2)
    assert (b.top1, b.top5, b.nonfinite_outputs, b.nonfinite_images) == (0.9, 0.9, 2, 1)
    assert b.agreement == 0.8, "two that give no answer do not agree"
    assert (b.flips_fixed, b.flips_broken) == (1, 0)
    assert [(f.reference_class, f.artifact_class, f.reference_confidence) for f in b.flips] == [(NO_ANSWER, 4, 0.0)]
    assert b.confusions == (Confusion(1, NO_ANSWER, 1),)
    assert (b.sqnr_db, c.sqnr_db) == (None, None), "what the reference lacks cannot be compared with"
    assert (c.nonfinite_outputs, c.nonfinite_images, c.warnings) == (0, 0, ())
    assert [(w.code, w.value) for w in b.warnings] == [("nonfinite-outputs", 1)]


def test_no_answer_is_not_right_for_a_picture_without_a_label(
    images: ImageSet, scripted: type[ScriptedWorker], tmp_path: Path
) -> None:
    unlabelled = ImageSet(images.root, images.files, (None,) * 5 + images.labels[5:], images.digests, "x")
    scripted.outputs["a"] = np.full((10, 5), np.nan, np.float32)
    (a,), _ = run(unlabelled, "a")
    assert (a.n_labelled, a.top1, a.top5, a.nonfinite_images) == (5, 0.0, 0.0, 10)
    Results(evaluations=[a]).save(tmp_path)
    assert Results.load(tmp_path).evaluations == [a]


def test_a_real_file_whose_weights_are_nan_answers_nothing(
    tiny_network: Network, tiny_images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    g = tiny_network.graph
    bias = g.tensors["logits_b"]
    assert bias.data is not None
    broken = replace(g, tensors={**g.tensors, "logits_b": replace(bias, data=np.full_like(bias.data, np.nan))})
    for name, of in (("whole", g), ("broken", broken)):
        (tmp_path / f"{name}.tflite").write_bytes(write_tflite(of))
    candidates = [Candidate(n, tmp_path / f"{n}.tflite") for n in ("whole", "broken")]
    (whole, e), failures = evaluate(candidates, tiny_images[1], tiny.PREPROCESSING, reference="whole")
    assert failures == []
    assert (e.top1, e.top5, e.agreement, e.sqnr_db) == (0.0, 0.0, 0.0, None)
    assert (e.nonfinite_images, e.nonfinite_outputs) == (30, 30 * tiny.CLASSES)
    assert whole.nonfinite_outputs == 0


# ------------------------------------------------------------------------------------------------------ what fails


def test_a_file_that_crashes_is_a_failure_and_the_others_go_on(
    images: ImageSet, scripted: type[ScriptedWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "stream", lambda i, p: stream(i, p, chunk=4))
    scripted.outputs |= {"a": answers(*RIGHT), "b": answers(*RIGHT), "c": answers(*RIGHT)}
    scripted.dies_after["b"] = 1  # in the second chunk
    evaluations, failures = run(images, "a", "b", "c", "missing", reference="a")
    assert [e.artifact for e in evaluations] == ["a", "c"]
    assert [e.top1 for e in evaluations] == [1.0, 1.0]
    assert {(f.stage, f.artifact) for f in failures} == {("evaluate", "b"), ("evaluate", "missing")}
    assert "SIGSEGV" in next(f.why for f in failures if f.artifact == "b")


def test_without_its_reference_a_file_is_measured_and_not_compared(
    images: ImageSet, scripted: type[ScriptedWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "stream", lambda i, p: stream(i, p, chunk=4))
    scripted.outputs |= {"a": answers(*RIGHT), "b": answers(*RIGHT[:9], 0)}
    scripted.dies_after["a"] = 1
    (b,), failures = run(images, "a", "b", reference="a")
    assert [f.artifact for f in failures] == ["a"]
    assert (b.top1, b.agreement, b.reference, b.sqnr_db) == (0.9, None, None, None)


def test_when_all_crash_there_are_only_failures(images: ImageSet, scripted: type[ScriptedWorker]) -> None:
    scripted.dies_after["a"] = 0
    evaluations, failures = run(images, "a", "missing")
    assert evaluations == []
    assert {f.artifact for f in failures} == {"a", "missing"}


def test_progress_counts_pictures(images: ImageSet, scripted: type[ScriptedWorker]) -> None:
    scripted.outputs["a"] = answers(*RIGHT)
    seen: list[tuple[int, int]] = []
    evaluate([Candidate("a", Path("a"))], images, tiny.PREPROCESSING, progress=lambda *p: seen.append(p))
    assert seen[-1] == (10, 10)


# ---------------------------------------------------------------------------------------------------- the real thing


def test_real_files_are_measured_on_real_pictures(
    tiny_files: dict[str, Path], tiny_images: tuple[ImageSet, ImageSet]
) -> None:
    candidates = [Candidate(p, path) for p, path in tiny_files.items()]
    evaluations, failures = evaluate(candidates, tiny_images[1], tiny.PREPROCESSING, reference="float32")
    assert failures == []
    assert [e.artifact for e in evaluations] == ["float32", "float16", "int8"]
    float32, float16, int8 = evaluations
    assert float32.top1 is not None
    assert float32.top1 > 0.9
    assert float16.agreement == 1.0
    assert float16.sqnr_db is not None
    assert int8.sqnr_db is not None
    assert float16.sqnr_db > int8.sqnr_db > 15
    assert int8.agreement is not None
    assert int8.agreement > 0.9


def test_a_file_that_is_no_model_is_a_failure_among_real_ones(
    tiny_files: dict[str, Path], tiny_images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(tiny_files["int8"].read_bytes()[:500])
    candidates = [Candidate("bad", bad), Candidate("float32", tiny_files["float32"])]
    evaluations, failures = evaluate(candidates, tiny_images[1], tiny.PREPROCESSING, reference="float32")
    assert [e.artifact for e in evaluations] == ["float32"]
    assert [f.artifact for f in failures] == ["bad"]
