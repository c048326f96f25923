"""Read what fuzzing once found again: `python -m fuzz.replay FOLDER ...`; a folder is called READER-HASH."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from fuzz.readers import READERS, use_this_process
from fuzz.run import attempt


def main() -> None:
    """Print one object: name of the folder -> [how it ended, why]."""
    use_this_process()
    found = {}
    out = os.dup(1)
    os.dup2(2, 1)  # native libraries print
    with tempfile.TemporaryDirectory(prefix="edgenet-fuzz-") as folder:
        for case in map(Path, sys.argv[1:]):
            place = Path(shutil.copytree(case, Path(folder, case.name)))  # a reader may write beside what it reads
            found[case.name] = attempt(READERS[case.name.rpartition("-")[0]], place)
    os.write(out, json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
