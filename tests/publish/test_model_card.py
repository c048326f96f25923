"""The model card: read back by the Hub's own library, offline; and its code for loading, run."""

import re

import numpy as np
import pytest
from PIL import Image

from edgenet.publish.model_card import KNOWN_WEIGHTS, model_card
from edgenet.results import Results
from edgenet.results.records import ImagesRecord
from helpers import tiny
from helpers.hand_built import changed, in_three_formats, partial_results, some_results, unlabelled
from helpers.hand_built_runs import a_calibration, a_finetuning
from helpers.places import ROOT


def read(text: str):
    """Return the card as huggingface_hub reads it; it complains of what the Hub would not take."""
    hub = pytest.importorskip("huggingface_hub", reason="needs pip install huggingface-hub==2.4.0")
    return hub.ModelCard(text, ignore_metadata_errors=False)


def front_matter(text: str):
    yaml = pytest.importorskip("yaml", reason="needs pip install huggingface-hub==2.4.0")
    return yaml.safe_load(text.split("---\n")[1])


def test_the_hubs_library_reads_every_figure_of_the_card() -> None:
    run = some_results(calibration=a_calibration(), images={"root": "/data/joe/my photos"})
    data = read(model_card(run)).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("tflite", "image-classification", "apache-2.0")
    assert data.datasets == ["imagenet-1k"]
    assert {"tflite", "int8", "edgenet"} <= {*data.tags}
    assert data.model_name == "efficientnet-lite0"
    by_file = {e.metric_args["file"]: e for e in data.eval_results}
    assert set(by_file) == {a.path for a in run.artifacts}
    for a, e in zip(run.artifacts, run.evaluations, strict=True):
        found = by_file[a.path]
        assert found.metric_type == "accuracy"
        assert found.metric_value == pytest.approx(e.top1)
        assert found.metric_args["ci95"] == pytest.approx(list(e.top1_ci95))
        assert found.metric_args["size_bytes"] == a.size_bytes
        assert found.dataset_name == "my photos"  # and not the way to somebody's home
        assert found.dataset_args["pictures"] == 500


def test_a_card_that_the_hubs_library_wrote_again_says_the_same() -> None:
    card = read(model_card(in_three_formats()))
    again = read(str(card))
    assert again.data.to_dict() == card.data.to_dict()
    assert again.text == card.text


def test_the_card_says_what_is_known_in_each_part() -> None:
    card = model_card(some_results(calibration=a_calibration(), images={"root": "photos"}))
    parts = dict(re.findall(r"^## ([^\n]*)\n\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL))
    assert list(parts) == ["Files", "How to load them", "What quantization cost", "Calibration", "Limits",
                           "How they were made"]  # fmt: skip
    assert parts["Files"].count("| <code>efficientnet-lite0") == 5
    assert "| 5.3 MB |" in parts["Files"].replace("\u00a0", " ")
    assert "84.0 to 89.8" in parts["Files"]
    cost = parts["What quantization cost"].replace("\u00a0", " ")
    assert "0.4 points lost" in cost
    assert "5 pictures became wrong and 3 right" in cost
    assert "answers as float32 on 98.4 % of 500 pictures" in cost
    assert "100 pictures of <code>photos</code>" in parts["Calibration"]
    assert "method mse" in parts["Calibration"]
    assert "not a phone" in parts["Limits"]
    assert all(a.sha256 in parts["How they were made"] for a in some_results().artifacts)


@pytest.mark.parametrize("name", partial_results())
def test_a_run_of_which_little_is_known_has_a_card_too(name) -> None:
    card = model_card(partial_results()[name])
    read(card)
    assert not re.search("None(?! of)", re.sub("```python.*?```", "", card, flags=re.DOTALL))
    assert "nan" not in card


def test_a_licence_is_named_only_where_it_is_known() -> None:
    assert front_matter(model_card(some_results()))["license"] == "apache-2.0"
    own = changed(some_results(), "int8", "artifacts", weights="mine.pth")
    tuned = some_results(training=a_finetuning())
    for run in (own, tuned):
        card = model_card(run)
        assert "license" not in front_matter(card)
        assert "Their licence is not recorded" in card


def test_the_licences_are_those_of_the_table_of_licences() -> None:
    rows = dict(
        re.findall(r"^\| (efficientnet-\S+) \| (\S+) \|", (ROOT / "docs/licences.md").read_text(), re.MULTILINE)
    )
    assert {name: licence.lower() for name, licence in rows.items()} == {n: k[0] for n, k in KNOWN_WEIGHTS.items()}


def test_agreement_stands_where_no_picture_has_a_label() -> None:
    card = model_card(unlabelled(some_results()))
    assert "model-index" not in front_matter(card)
    assert "answers as float32 on 98.4" in card
    assert "accuracy was not" in card


def test_names_of_others_are_no_markup_and_end_no_front_matter() -> None:
    bad = "a\n---\n[x](http://evil.example)|<script>`\u202e\u2028@you: *b*"
    run = changed(some_results(images={"root": f"/x/{bad}"}), "int8", "artifacts", weights=bad, model=bad)
    run.artifacts = [a for a in run.artifacts if a.precision == "int8"]
    card = model_card(run)
    data = front_matter(card)
    assert data["model-index"][0]["name"].startswith("a\n---")
    body = card.split("---\n", 2)[2]
    assert not re.search(r"<(?!/?code>)|\]\(|\u202e|\u2028", body)
    read(card)


def test_a_file_that_was_altered_is_left_out() -> None:
    from edgenet.report.refusals import Refusal

    card = model_card(some_results(), {"efficientnet-lite0_int8": Refusal("altered", "It was altered.")})
    assert "efficientnet-lite0_int8" not in card.split("## Files")[1].split("## How")[0].replace("&#95;", "_")


def blocks(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


@pytest.mark.slow
def test_the_code_of_the_card_answers_as_the_files_were_measured(published_run, tmp_path, monkeypatch) -> None:
    made, *ways = blocks(model_card(Results.load(published_run)))
    assert len(ways) == 3
    monkeypatch.chdir(published_run)
    label = 3
    Image.fromarray(tiny.picture(label, np.random.default_rng(5))).save(tmp_path / "photo.png")
    for way in ways:
        found: dict[str, object] = {}
        exec(made + way.replace('"photo.jpg"', repr(str(tmp_path / "photo.png"))), found)
        answer = np.asarray(found["answer"])
        assert answer.shape == (tiny.CLASSES,)
        assert answer.argmax() == label
        assert answer.sum() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("change", [{}, {"channel_order": "bgr"}, {"width_px": 40, "resolution_px": 30},
                                    {"channel_order": "grey", "mean": [120.0], "std": [60.0]},
                                    {"interpolation": "lanczos", "crop_padding_px": 0}], ids=str)  # fmt: skip
@pytest.mark.parametrize("io", ["float32", "uint8", "int8"])
def test_the_pixels_of_the_card_are_those_that_edgenet_makes(change, io, tmp_path) -> None:
    from edgenet.images import Preprocessing, normalise
    from edgenet.images.decode import decode

    how = {"resolution_px": 24, "mean": [127.0, 120.0, 110.0], "std": [128.0, 60.0, 50.0], **change}
    run = some_results()
    run.artifacts = [a for a in run.artifacts if a.precision == "int8"]
    run = changed(run, "int8", "artifacts", preprocessing=how, io_dtype=io)
    rng = np.random.default_rng(3)
    path = tmp_path / "p.png"
    Image.fromarray(rng.integers(0, 255, (71, 93, 3), np.uint8)).save(path)
    found: dict = {}
    exec(blocks(model_card(run))[0], found)
    p = Preprocessing.from_json(how)
    pixels = decode(str(path), p)[None]
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    expected = {"float32": normalise(pixels, p), "uint8": pixels, "int8": (pixels.astype(int) - 128).astype(np.int8)}[
        io
    ]
    made = found["pixels"](path)
    assert made.dtype == expected.dtype
    np.testing.assert_allclose(made, expected, rtol=1e-6)


def test_a_card_never_names_the_folder_above_the_pictures() -> None:
    run = some_results()
    run.context = run.context.__class__(images=ImagesRecord(root="/data/secret/flowers"))
    assert "secret" not in model_card(run)
