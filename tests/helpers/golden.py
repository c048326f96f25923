"""Golden texts: what a page shows as a whole, kept beside its test, so that every change of it is seen in a diff.

Renew them where a page is meant to change, and read the diff:

    RENEW_GOLDEN=1 .venv/bin/python -m pytest tests/report/test_golden.py tests/paper/test_page.py
"""

import os
from pathlib import Path


def assert_golden(shown: str, golden: Path) -> None:
    """Fail where `shown` is not the text of `golden`, line by line."""
    if os.environ.get("RENEW_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(shown, encoding="utf-8")
    known = golden.read_text(encoding="utf-8").splitlines()
    assert shown.splitlines() == known, "where the page is meant to change, renew it as helpers/golden.py says"
