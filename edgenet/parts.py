"""Parts of a set of pictures for training: who learns, who decides which epoch is the best, who measures."""

from dataclasses import replace

from edgenet.images import group_of, subset
from edgenet.results import ImageSet

HELD_BACK, LEAST_HELD_BACK, MOST_HELD_BACK = 0.15, 8, 512  # of the training pictures; pictures


def divide(images: ImageSet, n: int) -> tuple[ImageSet, ImageSet]:
    """Return about `n` pictures of the set and the others, by content hash; pictures of one content stay together.

    Both parts remember the size of the whole, of which 1 % may be unreadable.
    """
    keys = [group_of(images, i) for i in range(len(images))]
    order = sorted(range(len(images)), key=lambda i: (keys[i], images.digests[i], images.files[i]))
    ends = [i for i in range(1, len(order)) if keys[order[i]] != keys[order[i - 1]]] + [len(order)]
    n = min(ends, key=lambda end: (abs(end - n), end)) if 0 < n < len(order) else max(0, min(n, len(order)))
    whole = images.n_set or len(images)
    first, rest = (replace(subset(images, sorted(part)), n_set=whole) for part in (order[:n], order[n:]))
    return first, rest


def hold_back(train: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Return the pictures that decide which epoch is kept, and those that are left to train on."""
    return divide(train, min(MOST_HELD_BACK, max(LEAST_HELD_BACK, round(HELD_BACK * len(train)))))
