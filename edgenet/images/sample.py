"""The sample photographs: colour pictures that scikit-image and scikit-learn ship inside their wheels, as crops.

They let the first command run without a download. The photographs are unlabelled, so they show agreement with float
and latency, not accuracy. A crop is named `sample:<photograph>#<number>`; nothing is written to disk.
"""

import functools
import importlib.util
from pathlib import Path

from PIL import Image

from edgenet.errors import InputError, MissingDependency

PREFIX = "sample:"

# Only what the wheels themselves carry: skimage.data fetches its other pictures over the network. The second picture
# of the stereo pair (motorcycle_right.png), drawings, textures and microscopy are left out: they are not what a
# classifier of photographs sees; so is the portrait (astronaut.png), for which ImageNet has no class: the best guess
# is nearly a tie with the next one, and a change of order between them has nothing to do with quantization.
#                      package    folder             on PyPI
_SKIMAGE, _SKLEARN = ("skimage", "data", "scikit-image"), ("sklearn", "datasets/images", "scikit-learn")
_PHOTOGRAPHS = {
    "chelsea.png": _SKIMAGE,
    "china.jpg": _SKLEARN,
    "coffee.png": _SKIMAGE,
    "flower.jpg": _SKLEARN,
    "motorcycle_left.png": _SKIMAGE,
    "rocket.jpg": _SKIMAGE,
}

PACKAGES = {module: on_pypi for module, _, on_pypi in (_SKIMAGE, _SKLEARN)}  # module -> package on PyPI

# A window of `scale` times the photograph's width and height, which still holds its subject; x and y in 0..1 of the
# room that is left.
#  scale    x     y
_WINDOWS = (
    (1.00, 0.50, 0.50),
    (0.90, 0.00, 0.00),
    (0.90, 1.00, 0.00),
    (0.90, 0.00, 1.00),
    (0.90, 1.00, 1.00),
    (0.80, 0.00, 0.00),
    (0.80, 1.00, 0.00),
    (0.80, 0.00, 1.00),
    (0.80, 1.00, 1.00),
    (0.80, 0.50, 0.50),
    (0.70, 0.25, 0.25),
    (0.70, 0.75, 0.25),
    (0.70, 0.25, 0.75),
    (0.70, 0.75, 0.75),
    (0.70, 0.50, 0.50),
    (0.60, 0.50, 0.50),
)


def names() -> tuple[str, ...]:
    """Return the name of every crop, photograph by photograph."""
    return tuple(f"{PREFIX}{photo}#{i}" for photo in _PHOTOGRAPHS for i in range(len(_WINDOWS)))


def is_sample(file: str) -> bool:
    """Return whether `file` is the name of a sample crop."""
    return file.startswith(PREFIX)


def photograph_of(file: str) -> tuple[str, int]:
    """Split the name of a crop into the photograph and the number of the crop.

    Raises:
        InputError: there is no such crop.
    """
    photo, _, number = file.removeprefix(PREFIX).partition("#")
    if photo not in _PHOTOGRAPHS or not number.isdecimal() or int(number) >= len(_WINDOWS):
        raise InputError(
            f"no sample photograph '{file}': valid are {PREFIX}PHOTO#0 to #{len(_WINDOWS) - 1} "
            f"with PHOTO one of {', '.join(_PHOTOGRAPHS)}"
        )
    return photo, int(number)


def path_of(photo: str) -> Path:
    """Return where the installed package keeps the photograph.

    Raises:
        MissingDependency: the package is not installed.
        InputError: it is, and does not carry the photograph.
    """
    package, folder, on_pypi = _PHOTOGRAPHS[photo]
    spec = importlib.util.find_spec(package)  # finds it without importing it: scikit-learn takes a second to import
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency(on_pypi, "sample", "the set of sample photographs")
    path = Path(next(iter(spec.submodule_search_locations))) / folder / photo
    if not path.is_file():
        raise InputError(
            f"the installed {on_pypi} does not carry {photo}: pip install 'edgenet[sample]', or give a folder"
        )
    return path


def crop(file: str) -> Image.Image:
    """Return the crop called `file` as an RGB picture."""
    photo, number = photograph_of(file)
    picture = _load(path_of(photo))
    scale, x, y = _WINDOWS[number]
    width, height = round(picture.width * scale), round(picture.height * scale)
    left, top = round((picture.width - width) * x), round((picture.height - height) * y)
    return picture.crop((left, top, left + width, top + height))


@functools.lru_cache(maxsize=len(_PHOTOGRAPHS))  # six small pictures, each asked for once per window
def _load(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")
