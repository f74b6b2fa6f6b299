"""kill -9 at random moments of real processes loses nothing; ``benchmarks/kills.py`` does it hundreds of times."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "kills.py"


def test_a_few_kills_lose_nothing(tmp_path):
    out = tmp_path / "kills.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "5", "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert (found["kills"], found["losses"]) == (5, 0)
    assert found["runs"] >= 1
