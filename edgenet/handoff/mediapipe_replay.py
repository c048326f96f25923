"""A child process that runs MediaPipe Tasks: `mediapipe_replay.py MODEL PIXELS.npy SCORES.npy [embedding]`.

PIXELS is (N, H, W, 3) uint8, RGB; SCORES becomes (N, classes) float32 by its ImageClassifier, by class index, or with
`embedding` (N, D) float32 by its ImageEmbedder. In a process of its own, because
MediaPipe writes to the terminal as it likes, and ends the process on some damaged files.
"""

import sys

import numpy as np


def replay(model: str, pixels: np.ndarray) -> np.ndarray:
    """Return (N, classes) float32, the score of each class for (N, H, W, 3) uint8 RGB pictures."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=model), max_results=-1)
    rows = []
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for picture in pixels:
            image = mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(picture))
            categories = classifier.classify(image).classifications[0].categories
            row = np.zeros(max(c.index for c in categories) + 1, np.float32)
            for c in categories:
                row[c.index] = c.score
            rows.append(row)
    scores = np.zeros((len(rows), max(map(len, rows))), np.float32)
    for row, into in zip(rows, scores, strict=True):
        into[: len(row)] = row
    return scores


def embed(model: str, pixels: np.ndarray) -> np.ndarray:
    """Return (N, D) float32, the embedding of each of (N, H, W, 3) uint8 RGB pictures."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageEmbedderOptions(
        base_options=BaseOptions(model_asset_path=model), l2_normalize=False, quantize=False
    )
    with vision.ImageEmbedder.create_from_options(options) as embedder:
        images = (mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(picture)) for picture in pixels)
        return np.stack([np.asarray(embedder.embed(image).embeddings[0].embedding, np.float32) for image in images])


if __name__ == "__main__":
    sys.modules["tensorflow"] = None  # type: ignore[assignment]  # MediaPipe imports it for nothing, four seconds long
    run = embed if sys.argv[4:] == ["embedding"] else replay
    np.save(sys.argv[3], run(sys.argv[1], np.load(sys.argv[2])))
