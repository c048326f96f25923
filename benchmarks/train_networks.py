"""Train small versions of many architectures on a few flowers, so that a table of networks has trained weights.

    pip install torch torchvision timm onnxscript --extra-index-url https://download.pytorch.org/whl/cpu
    python benchmarks/train_networks.py --out NETS [--networks resnet18,...] [--shared ../shared]

What INT8 costs depends on the statistics that training leaves in a network (outliers, dead channels, narrow and wide
filters), which random weights do not have. ImageNet weights of these architectures come by download only, so each is
trained from nothing: the published width and depth, the first 20 classes of flowers102/train (400 pictures), at 64 px,
until it has seen some thousands of crops. That is little: top-1 on the 200 pictures of flowers102/test is printed and
kept in NETS/accuracy.json beside the .onnx files. Chance is 5 %. A file that is there is not made again; a seed makes
training repeatable on one machine.
"""

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.files import atomic_write
from edgenet.images import load_pixels, open_images
from edgenet.images.preprocess_option import parse_preprocess

N_CLASSES = 20
SEED = 0
BATCH = 16
MARGIN = 8 / 7  # pictures are this much larger than the crops that are taken of them
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Recipe:
    """An architecture by the name that its library has for it, and how it is trained.

    Attributes:
        crops: how many are seen, in all.
        settings: of timm.create_model or the function of torchvision.models.
    """

    name: str
    crops: int = 2400
    size_px: int = 64
    learning_rate: float = 1.5e-3
    library: str = "timm"
    settings: tuple[tuple[str, Any], ...] = ()


RECIPES = {
    r.name: r
    for r in (
        Recipe("mobilenetv2_100", 4800),
        Recipe("mobilenetv3_small_100", 8000),
        Recipe("squeezenet1_1", 3200, learning_rate=5e-4, library="torchvision"),
        Recipe("resnet18"),
        Recipe("lcnet_100", 3200),
        Recipe("shufflenet_v2_x1_0", 3200, library="torchvision"),
        Recipe("mobilenetv4_conv_small", 3200),
        Recipe("regnetx_002", 3200),
        Recipe("regnety_002", 3200),
        Recipe("vit_tiny_patch16_224", 3200, learning_rate=5e-4, settings=(("img_size", 64),)),
        Recipe("convnext_atto", learning_rate=1e-3),
        Recipe("mobilenetv1_100", 6400),
        Recipe("levit_128s", 3200, learning_rate=1e-3, settings=(("img_size", 64),)),
        Recipe("mnasnet_100"),
        Recipe("ghostnet_100"),
        Recipe("mobilevit_xxs", settings=(("img_size", 64),)),
        Recipe("efficientnet_b1"),
        Recipe("mobilenetv3_large_100", 4800),
        Recipe("densenet121", 1600),
        Recipe("inception_v3", 1600, 80),
        Recipe("efficientnet_b2"),
        Recipe("efficientnet_v2_s", 1600, library="torchvision"),
        Recipe("efficientnet_b3"),
        Recipe("resnet50", 1600),
    )
}


def build(recipe: Recipe) -> Any:
    """Return the network with N_CLASSES outputs and new weights."""
    settings = dict(recipe.settings)
    if recipe.library == "timm":
        import timm

        return timm.create_model(recipe.name, num_classes=N_CLASSES, **settings)
    import torchvision

    return torchvision.models.get_model(recipe.name, weights=None, num_classes=N_CLASSES, **settings)


def class_folders(shared: Path, out: Path) -> Path:
    """Return a folder with train/ and test/, each with links to the folders of the first N_CLASSES flowers."""
    for part in ("train", "test"):
        (out / "flowers" / part).mkdir(parents=True, exist_ok=True)
        for folder in sorted((shared / "flowers102" / part).resolve().iterdir())[:N_CLASSES]:
            link = out / "flowers" / part / folder.name
            if not link.is_symlink():
                link.symlink_to(folder)
    return out / "flowers"


def pictures(folder: Path, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what a folder of classes holds: (N, size, size, 3) uint8, (N,) int64."""
    names = [f"{i:03d}" for i in range(N_CLASSES)]
    images = open_images(folder, names, names)
    pixels = load_pixels(images, parse_preprocess(f"torch crop=0 size={size_px}", None), workers=1)
    return np.array(pixels), np.array(images.labels)


def normalised(pixels: np.ndarray) -> Any:
    """Return (N, H, W, 3) uint8 as PyTorch takes it: (N, 3, H, W) float32, normalised."""
    import torch

    x = (pixels.astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).contiguous(memory_format=torch.channels_last)


def crops(pixels: np.ndarray, size_px: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random crop of each picture, half of them mirrored, each a little brighter or darker."""
    made = []
    for picture in pixels:
        y, x = rng.integers(0, picture.shape[0] - size_px + 1, 2)
        crop = picture[y : y + size_px, x : x + size_px].astype(np.float32) * rng.uniform(0.8, 1.2)
        made.append((crop[:, ::-1] if rng.random() < 0.5 else crop).clip(0, 255).astype(np.uint8))
    return np.stack(made)


def train(recipe: Recipe, pixels: np.ndarray, labels: np.ndarray) -> Any:
    """Return a trained network in inference mode. pixels: (N, H, W, 3) uint8, larger than the crops."""
    import torch

    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    network = build(recipe).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=0.02)
    n_steps = recipe.crops // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, n_steps)
    for order in batches(len(pixels), n_steps, rng):
        scores = network(normalised(crops(pixels[order], recipe.size_px, rng)))
        scores = scores[0] if isinstance(scores, tuple) else scores
        loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels[order]), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        schedule.step()
    return network.eval()


def batches(n: int, n_steps: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the indices of n_steps batches: all pictures in a new order, again and again."""
    left = np.empty(0, np.int64)
    for _ in range(n_steps):
        if len(left) < BATCH:
            left = np.concatenate([left, rng.permutation(n)])
        yield left[:BATCH]
        left = left[BATCH:]


def top1(network: Any, pixels: np.ndarray, labels: np.ndarray) -> float:
    """Return how many of the pictures, (N, H, W, 3) uint8, the network names."""
    import torch

    with torch.no_grad():
        named = [network(normalised(pixels[i : i + 50])).argmax(1).numpy() for i in range(0, len(pixels), 50)]
    return float((np.concatenate(named) == labels).mean())


def export(network: Any, size_px: int, path: Path) -> None:
    """Write the network as users of PyTorch do, by torch.onnx.export, in one file."""
    import torch

    example = torch.zeros(1, 3, size_px, size_px)
    with atomic_write(path) as part:
        torch.onnx.export(
            network, (example,), str(part), input_names=["image"], output_names=["logits"],
            dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the .onnx files")
    parser.add_argument("--networks", default=",".join(RECIPES), help="some of them, with commas between")
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder that holds flowers102")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("torch").setLevel(logging.ERROR)
    args.out.mkdir(parents=True, exist_ok=True)
    record = args.out / "accuracy.json"
    folder = class_folders(args.shared, args.out)
    for recipe in (RECIPES[name] for name in args.networks.split(",")):
        path = args.out / f"{recipe.name}.onnx"
        if path.exists():
            continue
        start = time.process_time()
        network = train(recipe, *pictures(folder / "train", round(recipe.size_px * MARGIN)))
        right = top1(network, *pictures(folder / "test", recipe.size_px))
        known = json.loads(record.read_text()) if record.exists() else {}
        with atomic_write(record) as part:
            part.write_text(json.dumps({**known, recipe.name: right}, indent=2))
        export(network, recipe.size_px, path)
        print(f"{recipe.name}: {100 * right:.1f} %, {time.process_time() - start:.0f} s of processor time", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
