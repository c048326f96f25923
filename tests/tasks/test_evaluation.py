"""Every kind of network on real files: what is right, when two files agree, and the measures of each kind."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenet.calibration import Recipe, SharedCalibration
from edgenet.calibration.execute import Executor
from edgenet.errors import InputError
from edgenet.export import export_graph, find_source
from edgenet.export.tflite_file import write_tflite
from edgenet.images import load_pixels, normalise, open_images
from edgenet.jobs.evaluate_files import describe, evaluate_files
from edgenet.results import Evaluation, Results
from helpers import kinds, tiny

module = importlib.import_module("edgenet.evaluate")  # `edgenet.evaluate` is the function of the package
HOW = "mean=127.5 std=127.5 crop=0"
LABELS = ("red", "green", "blue", "bright")


def files_of(kind: str, out: Path, images: Path) -> list[Path]:
    """Write the float32 and the int8 file of a network of this kind."""
    source = find_source(str(kinds.save(out / f"{kind}.tflite", kind)), preprocess=HOW)
    network = source.network()
    used = open_images(images, source.class_ids, source.class_names, source.task)
    pixels = load_pixels(used, network.preprocessing)[::4]
    shared = SharedCalibration(network, pixels, used.fingerprint, Recipe(corrections=()))
    graphs = {p: shared.quantized(p, 8, {}, True) for p in ("float32", "int8")}
    return [out / export_graph(network, g, out, format="tflite", precision=p).path for p, g in graphs.items()]


def outputs_of(kind: str, images: Path) -> np.ndarray:
    """Return what the float network gives, (N, outputs), in the order of the folder."""
    source = find_source(str(images.parent / f"{kind}.tflite"), preprocess=HOW)
    network = source.network()
    used = open_images(images, source.class_ids, source.class_names, source.task)
    run = Executor(network.graph, network.graph.outputs, 1)
    x = normalise(load_pixels(used, network.preprocessing), network.preprocessing)
    return np.concatenate([run(picture[None])[0] for picture in x])


def measured(kind: str, out: Path, images: Path) -> tuple[Evaluation, Evaluation, Results]:
    results = evaluate_files(files_of(kind, out, images), str(images), None, None)
    assert results.failures == []
    whole, int8 = results.evaluations
    assert {whole.task, int8.task} == {kind if kind != "normalised" else "embedding"}
    assert int8.reference == whole.artifact
    assert Results.from_json(results.to_json()).evaluations == results.evaluations
    return whole, int8, results


def test_one_sigmoid_is_right_above_the_threshold(tmp_path: Path) -> None:
    images = tmp_path / "photos"
    rng = np.random.default_rng(2)
    for i in range(24):
        folder = images / ("no" if i % 3 else "yes")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiny.picture(i % 3, rng)).save(folder / f"{i}.png")
    whole, int8, _ = measured("binary", tmp_path, images)
    p = outputs_of("binary", images)[:, 0]
    truth = np.array([False] * 16 + [True] * 8)  # the folders in the order of their names
    assert whole.top1 == ((p > 0.5) == truth).mean()
    assert whole.top5 is None
    assert whole.classes == {"0": (16, int((p[:16] <= 0.5).sum())), "1": (8, int((p[16:] > 0.5).sum()))}
    pairs = [(a > b) + 0.5 * (a == b) for a in p[truth] for b in p[~truth]]
    assert whole.measures is not None
    assert whole.measures.auc is not None
    assert whole.measures.auc.value == pytest.approx(np.mean(pairs))
    assert int8.measures is not None
    assert int8.measures.auc is not None
    assert int8.measures.auc.drop == pytest.approx(whole.measures.auc.value - int8.measures.auc.value)
    assert int8.agreement is not None
    assert int8.agreement > 0.9
    assert int8.sqnr_db is not None
    assert int8.sqnr_db > 20
    assert int8.mcnemar_p is not None


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Thirty pictures with a labels.csv of several labels; one line without a label, one picture without a line."""
    images = tmp_path / "photos"
    images.mkdir()
    rng = np.random.default_rng(4)
    lines = ["file,label"]
    for i in range(30):
        Image.fromarray(tiny.picture(i % 5, rng)).save(images / f"{i:02}.png")
        own = [LABELS[k] for k in range(4) if rng.random() < 0.5]
        lines += [f"{i:02}.png,{'|'.join(own) if i else ''}"] * (i != 29)
    (images / "labels.csv").write_text("\n".join(lines))
    return images


def test_several_labels_are_right_where_all_of_them_are(several: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(LABELS))
    path = kinds.save(tmp_path / "labels.tflite", "labels")
    source = find_source(str(path), preprocess=HOW, labels=names)
    assert source.task.kind == "labels"
    used = open_images(several, source.class_ids, source.class_names, source.task)
    assert used.label_sets[0] == ()
    assert used.label_sets[29] is None
    assert used.n_labelled == 29
    network = source.network()
    path = tmp_path / export_graph(network, network.graph, tmp_path, format="tflite", precision="float32").path
    (e,) = evaluate_files([path], str(several), None, None).evaluations
    run = Executor(network.graph, network.graph.outputs, 1)
    x = normalise(load_pixels(used, network.preprocessing), network.preprocessing)
    p = np.concatenate([run(picture[None])[0] for picture in x])[:29]
    truth = np.array([[k in (s or ()) for k in range(4)] for s in used.label_sets[:29]])
    assert e.n_labelled == 29
    assert e.top1 == ((p > 0.5) == truth).all(axis=1).mean()
    assert (e.top5, e.classes, e.flips) == (None, {}, ())
    m = e.measures
    assert m is not None
    assert m.decisions is not None
    assert m.decisions.value == pytest.approx(((p > 0.5) == truth).mean())
    assert [label.n for label in m.labels] == list(truth.sum(axis=0))
    assert m.average_precision is not None
    assert m.average_precision.value == pytest.approx(np.mean([label.average_precision for label in m.labels]))
    assert m.average_precision.ci95[0] < m.average_precision.value < m.average_precision.ci95[1]
    assert m.auc is None


def test_the_int8_file_of_several_labels_says_which_decisions_changed(several: Path, tmp_path: Path) -> None:
    text = (several / "labels.csv").read_text()
    for i, name in enumerate(LABELS):
        text = text.replace(name, str(i))
    (several / "labels.csv").write_text(text)
    whole, int8, _ = measured("labels", tmp_path, several)
    assert whole.measures is not None
    assert int8.measures is not None
    assert {label.changed for label in whole.measures.labels} == {None}
    assert all(label.changed is not None for label in int8.measures.labels)
    assert int8.agreement is not None
    assert int8.agreement >= 0.9


def test_an_embedding_is_right_where_the_nearest_other_picture_has_the_same_label(tmp_path: Path) -> None:
    images = tiny.make_folder(tmp_path / "photos", per_class=6)
    whole, int8, _ = measured("normalised", tmp_path, images)
    v = outputs_of("normalised", images)
    alike = v @ v.T
    np.fill_diagonal(alike, -2)
    nearest = alike.argmax(axis=1)
    assert whole.top1 == (nearest // 6 == np.arange(30) // 6).mean()
    assert whole.measures is None  # it is what the others are compared with
    m = int8.measures
    assert m is not None
    assert m.cosine is not None
    assert m.recall_at_1 is not None
    assert m.cosine_least is not None
    assert m.cosine_least <= m.cosine.value <= 1
    assert m.cosine.value > 0.99
    assert describe(tmp_path / "normalised_int8.tflite").class_names == ()


def test_unlabelled_pictures_measure_an_embedding_too(tmp_path: Path) -> None:
    images = tiny.make_folder(tmp_path / "classes", per_class=3)
    flat = tmp_path / "photos"
    flat.mkdir()
    for i, file in enumerate(sorted(images.rglob("*.jpg"))):
        file.rename(flat / f"{i}.jpg")
    whole, int8, _ = measured("normalised", tmp_path, flat)
    assert (whole.top1, int8.top1) == (None, None)
    assert int8.agreement is not None
    assert int8.measures is not None


def test_more_numbers_than_fit_into_memory_are_refused_with_a_limit_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tiny.make_folder(tmp_path / "photos", per_class=3)
    files = files_of("normalised", tmp_path, images)
    monkeypatch.setattr(module, "MAX_NUMBERS", 60)
    with pytest.raises(InputError, match=r"more than 10 pictures with 6 numbers each .* give --limit 10"):
        evaluate_files(files, str(images), None, None)
    assert evaluate_files(files, str(images), None, 10).failures == []


def test_two_classes_have_the_measures_of_yes_and_no(tmp_path: Path) -> None:
    images = tmp_path / "photos"
    rng = np.random.default_rng(2)
    for i in range(12):
        folder = images / str(i % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiny.picture(i % 5, rng)).save(folder / f"{i}.png")
    graph = tiny.graph(classes=2)
    (tmp_path / "two.tflite").write_bytes(write_tflite(graph))
    network = find_source(str(tmp_path / "two.tflite"), preprocess=HOW).network()
    path = tmp_path / export_graph(network, graph, tmp_path, format="tflite", precision="float32").path
    (e,) = evaluate_files([path], str(images), None, None).evaluations
    assert e.task == "classes"
    assert e.measures is not None
    assert e.measures.auc is not None
    assert 0 <= e.measures.auc.value <= 1
    assert e.measures.cosine is None
