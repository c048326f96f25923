"""The command line in a process of its own: what the fixture `edgenet` of conftest.py takes and gives."""

import subprocess
from collections.abc import Callable

Done = subprocess.CompletedProcess[str]
Edgenet = Callable[..., Done]
