"""`--images tfds:NAME[#SPLIT]`: a data set of TensorFlow Datasets as a folder of pictures with a labels.csv.

NAME is written as TFDS writes it, with a config and a version where there are several: tfds:imagenette/320px:1.0.0.
Without a SPLIT all splits are taken. Pictures are copied as they are stored, byte by byte, once, into the user's cache
(XDG_CACHE_HOME); data sets are looked for, and fetched into, TFDS's own folder (TFDS_DATA_DIR).
"""

import csv
import functools
import hashlib
import re
import shutil
import socket
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from edgenet.cache.store import root as cache_root
from edgenet.errors import InputError, MissingDependency
from edgenet.frameworks import quiet, tensorflow
from edgenet.images.folders import LABELS_FILE

PREFIX = "tfds:"
_SUFFIXES = ((b"\xff\xd8", ".jpg"), (b"\x89PNG", ".png"), (b"GIF8", ".gif"), (b"RIFF", ".webp"), (b"BM", ".bmp"))


def is_tfds(images: str | Path) -> bool:
    """Return whether `--images` names a data set of TensorFlow Datasets."""
    return str(images).startswith(PREFIX)


@functools.cache
def folder_of(images: str) -> Path:
    """Return a folder with the pictures of tfds:NAME[#SPLIT]; they are copied there once.

    Raises:
        InputError: no such data set, config, version or split; not on disk and not to be fetched; no pictures in it.
        MissingDependency: tensorflow-datasets is not installed.
    """
    name, _, split = images.removeprefix(PREFIX).partition("#")
    if not name:
        raise InputError(f"'{images}' names no data set: write tfds:NAME, e.g. tfds:imagenette/320px")
    builder = _prepared(name, images)
    splits = sorted(builder.info.splits)
    if split and split not in splits:
        raise InputError(f"{images}: {name} has no split '{split}' (valid: {', '.join(splits)})")
    picture, label = _features(builder.info, images)
    of_what = str(builder.data_path).encode() + (builder.data_path / "dataset_info.json").read_bytes()
    parts = [builder.info.name, builder.info.config_name or "", str(builder.info.version), split or "all",
             hashlib.sha256(of_what).hexdigest()[:12]]  # fmt: skip
    root = cache_root() / "tfds" / "-".join(re.sub(r"[^\w.]", "_", p) for p in parts if p)
    if not (root / LABELS_FILE).exists():
        _copy(builder, [split] if split else splits, picture, label, root)
    return root


def _prepared(name: str, images: str) -> Any:
    """Return the builder of a data set that is on disk now."""
    tensorflow()
    try:
        with quiet():
            import tensorflow_datasets as tfds
    except ImportError:
        raise MissingDependency("tensorflow-datasets", "tfds", f"reading {images}") from None
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder = tfds.builder(name)
    except Exception as e:  # TFDS has ValueError, AssertionError and its own
        raise InputError(f"{images}: {_why_not(tfds, name, e)}") from None
    if _on_disk(builder):
        return builder
    where = f"{images} is not in {builder.data_dir}"
    hosts = {urllib.parse.urlparse(url).hostname for url in getattr(builder, "url_infos", None) or ()} - {None}
    if hosts and not urllib.request.getproxies() and not any(map(_resolves, sorted(map(str, hosts)))):
        # TFDS itself tries for minutes.
        raise InputError(f"{where} and cannot be fetched: no {' or '.join(sorted(map(str, hosts))[:2])} from here; "
                         "set TFDS_DATA_DIR to where it is, or fetch it on a machine that is online")  # fmt: skip
    try:
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except Exception as e:  # requests, TensorFlow, tarfile and assertions on what is to be downloaded by hand
        raise InputError(
            f"{where} and cannot be fetched ({_first_line(e)}): set TFDS_DATA_DIR to where it is, or do as "
            f"https://www.tensorflow.org/datasets/catalog/{builder.info.name} says"
        ) from None
    return builder


def _on_disk(builder: Any) -> bool:
    try:
        return bool(builder.info.splits) and bool(builder.data_path.exists())
    except Exception:  # a folder that was half written
        return False


def _why_not(tfds: Any, name: str, e: Exception) -> str:
    import difflib

    if "not found" in str(e) and not isinstance(e, AssertionError) and "Config" not in str(e):
        plain = re.split(r"[/:]", name)[0]
        near = difflib.get_close_matches(plain, tfds.list_builders(), n=3)
        hint = f" (near: {', '.join(near)})" if near else ""
        return f"no such data set{hint}; https://www.tensorflow.org/datasets/catalog lists them"
    return f"{_first_line(e)}; write NAME, NAME/CONFIG or NAME/CONFIG:VERSION"


def _first_line(e: Exception) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return re.sub(r'^Failed to construct dataset .*?}": ', "", lines[0])[:200].rstrip(" .:") if lines else repr(e)


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def _features(info: Any, images: str) -> tuple[str, str | None]:
    """Return the names of the features that hold the picture and its class, those of the supervised form first."""
    from tensorflow_datasets.core import features as kinds

    features = info.features
    if not isinstance(features, kinds.FeaturesDict):
        raise InputError(f"{images} has no pictures: give a data set for image classification")
    first = [k for k in info.supervised_keys or () if isinstance(k, str)]
    names = [*first, *(n for n in features if n not in first)]
    picture = next((n for n in names if isinstance(features[n], kinds.Image)), None)
    label = next((n for n in names if isinstance(features[n], kinds.ClassLabel)), None)
    if picture is None:
        has = ", ".join(sorted(features))
        raise InputError(f"{images} has no pictures (it has {has}): give a data set for image classification")
    return picture, label


def _copy(builder: Any, splits: list[str], picture: str, label: str | None, root: Path) -> None:
    """Write the stored pictures and labels.csv to `root`, whole or not at all."""
    import tensorflow_datasets as tfds

    root.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        rows = [("file", "label")]
        for split in splits:
            data = builder.as_dataset(split=split, decoders={picture: tfds.decode.SkipDecoding()})
            for i, example in enumerate(data.as_numpy_iterator()):
                stored: bytes = example[picture]
                suffix = next((s for magic, s in _SUFFIXES if stored.startswith(magic)), ".png")
                file = f"{re.sub(r'[^A-Za-z0-9]', '_', split)}_{i:07d}{suffix}"
                (work / file).write_bytes(stored)
                known = label is not None and int(example[label]) >= 0  # -1: a test split whose labels are secret
                rows.append((file, builder.info.features[label].int2str(int(example[label])) if known else ""))
        with open(work / LABELS_FILE, "w", newline="", encoding="utf-8") as f:
            csv.writer(f).writerows(rows)
        try:
            work.rename(root)
        except OSError:  # another process was first
            if not (root / LABELS_FILE).exists():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
