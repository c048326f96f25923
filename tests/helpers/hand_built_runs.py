"""What runs note of how their files came about, built by hand: calibration, search, training, times of the rounds.

Notes are plain values, as results.json has them; `hand_built.some_results(calibration=...)` reads them.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from edgenet.results import Results

FINGERPRINT = "c" * 64  # of the calibration that hand_built's int8 files name


def a_tensor(name: str, low: float, high: float, seen: tuple[float, float] = (-4.0, 4.0)) -> dict[str, Any]:
    counts = [int(1000 * np.exp(-(((i - 31.5) / 12) ** 2))) for i in range(64)]
    return {"name": name, "kind": "CONV_2D", "low": low, "high": high, "seen_low": seen[0], "seen_high": seen[1],
            "counts": counts, "scale": (high - low) / 255, "zero_point": -3}  # fmt: skip


def a_calibration(n: int = 30) -> dict[str, Any]:
    tensors = [a_tensor(f"layer{i}", -4 + 0.05 * i, 4 - 0.05 * i) for i in range(n)]
    return {"method": "mse", "corrections": ["feedback", "bias-correction"], "n_images": 100,
            "fingerprint": FINGERPRINT, "tensors": tensors}  # fmt: skip


def a_step(n: int, met: bool, exceptions: dict[str, str], **changes: Any) -> dict[str, Any]:
    return {"n": n, "what": f"step {n} of the search", "artifact": None, "why": f"reason {n}", "drop": 0.012 - n / 500,
            "agreement": 0.97, "sqnr_db": 15.0 + n, "median_ms": None, "size_bytes": 5_300_000, "met": met,
            "exceptions": exceptions, **changes}  # fmt: skip


def a_search(met: bool = True) -> dict[str, Any]:
    exceptions = {"block0": "int16", "block7": "int16", "logits": "float32"}
    steps = [a_step(1, False, {}), a_step(2, met, exceptions, artifact="efficientnet-lite0_int8", median_ms=9.8)]
    layers = [{"name": f"block{i}", "kind": "CONV_2D", "sqnr_db": 12.0 + 2 * i} for i in range(20)]
    return {"budget": "at most 0.5 points of top-1 lost", "met": met, "steps": steps, "sensitivity": layers}


def a_search_of_few_pictures() -> dict[str, Any]:
    """One that 86 pictures could not decide: the file without a budget was kept."""
    step = a_step(1, False, {}, artifact="efficientnet-lite0_int8", why="the file without a budget", drop=-0.0233,
                  verdict="cannot tell", limits=[-0.0937, 0.0332], n_images=86, pictures_needed=468)  # fmt: skip
    return {"budget": "at most 0.5 points lost", "met": False, "verdict": "cannot tell", "max_drop": 0.005,
            "steps": [step], "sensitivity": []}  # fmt: skip


def measured(agreement: float, sqnr_db: float = 25.0) -> dict[str, Any]:
    return {"agreement": agreement, "agreement_ci95": [agreement - 0.01, agreement + 0.005], "top1": 0.87,
            "sqnr_db": sqnr_db, "n_images": 100}  # fmt: skip


def a_training(kept: str = "qat", agreement: float = 0.99, **changes: Any) -> dict[str, Any]:
    curve = [{"epoch": 0, "held_back_loss": 0.02, "held_back_agreement": 0.97}]
    curve += [
        {"epoch": e, "held_back_loss": 0.02 - e / 500, "held_back_agreement": 0.97 + e / 200, "loss": 0.05 / e,
         "learning_rate": 0.001, "images_per_s": 14.2}
        for e in range(1, 6)
    ]  # fmt: skip
    file = {
        "format": "tflite",
        "kept": kept,
        "why": "it was nearer",
        "before": measured(0.98),
        "after": measured(agreement),
    }
    told = {
        "kind": "qat", "curve": curve, "best_epoch": 4, "stopped_early": False, "seconds": 372.4, "images_per_s": 14.2,
        "before": file["before"], "after": file["after"], "kept": kept, "why": "it was nearer", "files": [file],
        "simulated_like_file": {"before": 1.0, "after": 0.996}, "settings": {"epochs": 5}, "weight_bits": 8,
        "pictures": {"calibration": 100, "train": 255, "held_back": 45, "evaluation": 100},
    }  # fmt: skip
    return {**told, **changes}


def a_finetuning(kept: str = "top", tried: int = 3, **changes: Any) -> dict[str, Any]:
    """A head, two epochs of the top layers and one of all; `tried` of the three stages."""
    curve = [{"epoch": e, "held_back_loss": 1 / (e + 1), "held_back_accuracy": 0.9 + e / 50,
              "held_back_learned": [0, 2, 3, 1][e], "held_back_forgotten": [0, 1, 1, 0][e]}
             for e in range(4)]  # fmt: skip
    stages = [
        {"layers": "head", "held_back_accuracy": 0.9, "held_back_loss": 1.0, "epochs": 0},
        {"layers": "top", "held_back_accuracy": 0.94, "held_back_loss": 1 / 3, "epochs": 2, "seconds": 60.2,
         "gain": 2 / 3, "gain_error": 0.25, "learned": 3, "forgotten": 1},
        {"layers": "all", "held_back_accuracy": 0.96, "held_back_loss": 0.25, "epochs": 1, "seconds": 70.1,
         "gain": 1 / 12, "gain_error": 0.2, "learned": 1, "forgotten": 0},
    ]  # fmt: skip
    best = {"head": 0, "top": 2, "all": 3}[kept]
    epochs = sum(int(str(stage["epochs"])) for stage in stages[:tried])
    told = {"kind": "finetune", "curve": curve[: epochs + 1], "best_epoch": best, "kept": kept,
            "stages": stages[:tried], "before": {"held_back_accuracy_of_the_new_head": 0.9}, "after": {"top1": 0.992},
            "files": [], "activations": {"views": 6, "pictures": 355, "size_bytes": 66_800_000,
                                         "at": "block7_project_add", "work_saved": 0.408}}  # fmt: skip
    return a_training(**{**told, **changes})


def a_refit(pictures: int = 400, epochs: int = 2, **changes: Any) -> dict[str, Any]:
    """How the network of `a_finetuning` learned once more from all pictures."""
    return {"pictures": pictures, "epochs": epochs, "seconds": 70.4, "held_back_loss": 0.2, "kept": True, **changes}


def over_time(results: Results, **fields: Any) -> Results:
    """The same with times of the rounds, so that a curve can be drawn."""
    timed = [replace(m, round_s=tuple(1.5 * r for r in sorted(set(m.rounds))), **fields) for m in results.measurements]
    return replace(results, measurements=timed)
