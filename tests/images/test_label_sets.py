"""Several labels a picture stay with it through splits, limits and unions, and are a part of what the set is."""

from pathlib import Path

from PIL import Image

from edgenet.images import limit, open_images, split
from edgenet.images.roles import joined
from edgenet.tasks import Task

NAMES = ("a", "b", "c")
LABELS = Task("labels")


def folder(root: Path, table: str) -> Path:
    root.mkdir()
    for i in range(6):
        Image.new("RGB", (4, 4), (i * 40, 0, 0)).save(root / f"{i}.png")
    (root / "labels.csv").write_text(table)
    return root


TABLE = "0.png,a|b\n1.png,c\n2.png,\n3.png,a\n4.png,b|c\n"


def test_labels_stay_with_their_picture(tmp_path: Path) -> None:
    images = open_images(folder(tmp_path / "x", TABLE), NAMES, NAMES, LABELS)
    assert images.label_sets == ((0, 1), (2,), (), (0,), (1, 2), None)
    assert images.n_labelled == 5
    own = dict(zip(images.files, images.label_sets, strict=True))
    for part in (*split(images, 3), limit(images, 4), joined(*split(images, 3))):
        assert [own[f] for f in part.files] == list(part.label_sets)
        assert part.n_labelled == sum(s is not None for s in part.label_sets)


def test_other_labels_are_another_set(tmp_path: Path) -> None:
    first = open_images(folder(tmp_path / "x", TABLE), NAMES, NAMES, LABELS)
    other = open_images(folder(tmp_path / "y", TABLE.replace("a|b", "a|c")), NAMES, NAMES, LABELS)
    none = open_images(folder(tmp_path / "z", TABLE.replace("2.png,\n", "")), NAMES, NAMES, LABELS)
    assert len({first.fingerprint, other.fingerprint, none.fingerprint}) == 3
