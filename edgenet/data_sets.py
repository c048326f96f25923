"""Data sets in their official layouts: their names, as in `--images flowers102:DIR`, and which pictures measure."""

NAMES = ("flowers102", "cifar10", "cifar100", "pets", "food101", "aircraft", "cars")


def is_named(images: str) -> bool:
    """Return whether `--images` names a data set in its official layout."""
    return images.partition(":")[0] in NAMES and ":" in images


def measuring_part(images: str) -> str | None:
    """Return the pictures of a data set that measure, where `images` names a whole one."""
    return f"{images}#test" if is_named(images) and "#" not in images else None
