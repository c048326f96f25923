"""TFLite metadata: what is written is read back, by this code, by MediaPipe's schema and by MediaPipe itself."""

import importlib.util
import io
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenet.errors import InputError
from edgenet.export.metadata import (
    BUFFER_NAME,
    ClassifierMetadata,
    append_files,
    build_metadata,
    parse_metadata,
    read_buffers,
    read_files,
    read_metadata,
    split_files,
)
from helpers.damage import with_metadata

LABELS = b"ant\nbee\ncat\ndog\nelk"
ABOUT = ClassifierMetadata(
    "Tiny", "a tiny network", "0.1.0", "Ada", "Apache-2.0", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375),
    n_classes=5,
)  # fmt: skip


@pytest.fixture
def model() -> bytes:
    """A .tflite file with nothing in it but a buffer."""
    import flatbuffers

    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    tree = schema.ModelT()
    tree.version, tree.buffers, tree.subgraphs = 3, [schema.BufferT()], []
    b = flatbuffers.Builder(64)
    b.Finish(tree.Pack(b), b"TFL3")
    return bytes(b.Output())


def test_every_field_comes_back(model):
    m = read_metadata(with_metadata(model, {BUFFER_NAME: build_metadata(ABOUT)}))
    assert {k: m[k] for k in ("name", "description", "version", "author", "license", "min_parser_version")} == {
        "name": "Tiny", "description": "a tiny network", "version": "0.1.0", "author": "Ada", "license": "Apache-2.0",
        "min_parser_version": "1.0.0",
    }  # fmt: skip
    (image,), (score,) = m["inputs"], m["outputs"]
    assert (image["content"], image["color_space"]) == ("image", "rgb")
    assert image["mean"] == pytest.approx(ABOUT.mean, rel=1e-6)
    assert image["std"] == pytest.approx(ABOUT.std, rel=1e-6)
    assert image["min"] == pytest.approx([-2.117904, -2.035714, -1.804444], rel=1e-5)
    assert image["max"] == pytest.approx([2.248908, 2.428571, 2.64], rel=1e-5)
    assert score["content"] == "feature"
    assert score["files"] == [{"name": "labels.txt", "type": "axis labels"}]


def test_mediapipes_own_schema_reads_the_same():
    package = importlib.util.find_spec("mediapipe")
    if package is None or package.origin is None:
        pytest.skip("mediapipe is not installed")
    path = Path(package.origin).parent / "tasks/metadata/metadata_schema_py_generated.py"  # without its 3 s of imports
    spec = importlib.util.spec_from_file_location("mediapipe_schema", path)
    assert spec is not None
    assert spec.loader is not None
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    buffer = build_metadata(ABOUT)
    assert theirs.ModelMetadata.ModelMetadataBufferHasIdentifier(buffer, 0)
    m = theirs.ModelMetadataT.InitFromObj(theirs.ModelMetadata.GetRootAs(buffer, 0))
    assert (m.name, m.author, m.version, m.license) == (b"Tiny", b"Ada", b"0.1.0", b"Apache-2.0")
    assert m.minParserVersion == b"1.0.0"
    (image,), (score,) = m.subgraphMetadata[0].inputTensorMetadata, m.subgraphMetadata[0].outputTensorMetadata
    assert isinstance(image.content.contentProperties, theirs.ImagePropertiesT)
    assert image.content.contentProperties.colorSpace == theirs.ColorSpaceType.RGB
    assert image.processUnits[0].optionsType == theirs.ProcessUnitOptions.NormalizationOptions
    np.testing.assert_allclose(image.processUnits[0].options.mean, ABOUT.mean, rtol=1e-6)
    np.testing.assert_allclose(image.processUnits[0].options.std, ABOUT.std, rtol=1e-6)
    np.testing.assert_allclose(image.stats.max, [2.248908, 2.428571, 2.64], rtol=1e-5)
    assert isinstance(score.content.contentProperties, theirs.FeaturePropertiesT)
    assert score.associatedFiles[0].name == b"labels.txt"
    assert score.associatedFiles[0].type == theirs.AssociatedFileType.TENSOR_AXIS_LABELS


def test_a_file_that_takes_pixels_says_so():
    image = parse_metadata(build_metadata(replace(ABOUT, float_input=False)))["inputs"][0]
    assert (image["min"], image["max"]) == ([0.0], [255.0])
    assert "raw 0..255" in image["description"]
    assert image["mean"] == pytest.approx(ABOUT.mean, rel=1e-6)


@pytest.mark.parametrize(("mean", "std"), [((1, 2), (1, 2)), ((0,), (0,)), ((0, 0, 0), (1,)), ((), ())])
def test_a_normalization_that_cannot_be_is_refused(mean, std):
    with pytest.raises(InputError, match="1 or 3 values"):
        build_metadata(replace(ABOUT, mean=mean, std=std))


def test_the_archive_is_stored_behind_the_model_and_the_same_every_time(model):
    whole = append_files(model, {"labels.txt": LABELS})
    assert whole.startswith(model)
    assert LABELS in whole  # stored, not deflated: readers map it
    assert whole == append_files(model, {"labels.txt": LABELS})
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert archive.testzip() is None
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)
    assert read_files(whole) == {"labels.txt": LABELS}
    assert split_files(whole) == (model, {"labels.txt": LABELS})


def test_files_are_replaced_by_name_and_others_stay(model):
    whole = append_files(append_files(model, {"labels.txt": b"old", "a.txt": b"a"}), {"labels.txt": LABELS})
    assert read_files(whole) == {"labels.txt": LABELS, "a.txt": b"a"}
    assert whole.count(b"PK\x05\x06") == 1
    assert read_metadata(whole) == {}


def test_a_model_without_any_says_so(model):
    assert read_files(model) == {}
    assert read_metadata(model) == {}
    assert append_files(model, {}) == model


def test_other_buffers_are_read_by_name(model):
    two = with_metadata(model, {"edgenet": b'{"a": 1}', BUFFER_NAME: build_metadata(ABOUT)})
    assert read_buffers(two)["edgenet"] == b'{"a": 1}'
    assert read_metadata(two)["name"] == "Tiny"


def test_what_is_no_tflite_file_is_refused():
    with pytest.raises(InputError, match=r"not a \.tflite file"):
        read_metadata(b"hello, world")
    with pytest.raises(InputError, match="metadata is damaged"):
        parse_metadata(b"hello, world")


def test_damaged_metadata_and_archives_are_input_errors_or_valid_answers(model):
    whole = append_files(with_metadata(model, {BUFFER_NAME: build_metadata(ABOUT)}), {"labels.txt": LABELS})
    rng = random.Random(0)
    refused = 0
    for k in range(1000):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 5))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if k % 2:
            del data[rng.randrange(len(data)) :]
        for read in (read_metadata, read_files):
            try:
                assert isinstance(read(bytes(data)), dict)
            except InputError:
                refused += 1
    assert refused > 200


@pytest.fixture(scope="module")
def classifiers() -> dict[str, bytes]:
    """A network of 32 px and 5 classes: float32, and full integer with float32, uint8 and int8 input."""
    tf = pytest.importorskip("tensorflow")
    pytest.importorskip("mediapipe")
    rng = np.random.default_rng(0)
    conv, dense = (rng.normal(0, 0.3, s).astype(np.float32) for s in ((3, 3, 3, 8), (8, 5)))

    class Net(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 32, 32, 3), tf.float32)])
        def __call__(self, x):
            x = tf.nn.relu6(tf.nn.conv2d(x, conv, 2, "SAME"))
            return tf.nn.softmax(tf.matmul(tf.reduce_mean(x, [1, 2]), dense))

    def pictures():
        for _ in range(8):
            yield [((rng.integers(0, 256, (1, 32, 32, 3)) - 127.0) / 128).astype(np.float32)]

    net, out = Net(), {}
    for kind in ("float32", "integer", "uint8", "int8"):
        c = tf.lite.TFLiteConverter.from_concrete_functions([net.__call__.get_concrete_function()], net)
        if kind != "float32":
            c.optimizations, c.representative_dataset = [tf.lite.Optimize.DEFAULT], pictures
            c.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if kind in ("uint8", "int8"):
            c.inference_input_type = c.inference_output_type = getattr(tf, kind)
        out[kind] = c.convert()
    return out


def _packed(model: bytes, kind: str) -> bytes:
    about = replace(ABOUT, mean=(127.0,) * 3, std=(128.0,) * 3, float_input=kind in ("float32", "integer"))
    meta = build_metadata(about)
    return append_files(with_metadata(model, {BUFFER_NAME: meta}), {"labels.txt": LABELS})


def _classify(model: bytes, pixels: np.ndarray) -> dict[str, float]:
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_buffer=model))
    with vision.ImageClassifier.create_from_options(options) as classifier:
        result = classifier.classify(mp.Image(image_format=mp.ImageFormat.SRGB, data=pixels))
    return {c.category_name: c.score for c in result.classifications[0].categories}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["float32", "integer", "uint8"])
def test_mediapipes_classifier_takes_the_file_and_names_the_labels(classifiers, kind):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    scores = _classify(_packed(classifiers[kind], kind), pixels)
    assert set(scores) == set(LABELS.decode().split())

    interpreter = litert.Interpreter(model_content=classifiers[kind])
    interpreter.allocate_tensors()
    image, score = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    x = pixels[None] if kind == "uint8" else ((pixels[None] - np.float32(127)) / np.float32(128)).astype(np.float32)
    interpreter.set_tensor(image["index"], x)
    interpreter.invoke()
    expected = interpreter.get_tensor(score["index"])[0]
    if kind == "uint8":
        expected = expected.astype(np.float32) / 256
    np.testing.assert_allclose([scores[n] for n in LABELS.decode().split()], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mediapipes_classifier_refuses_a_float_file_without_and_an_int8_input_with_metadata(classifiers):
    """The reasons for NormalizationOptions, and for offering uint8 to Android: the day this fails, they are gone."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(Exception, match="NormalizationOptions"):
        _classify(classifiers["float32"], pixels)
    with pytest.raises(Exception, match="uint8/float32, got INT8"):
        _classify(_packed(classifiers["int8"], "int8"), pixels)
