"""scripts/smoke.sh, and what it says."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "smoke.sh"


def run_smoke(base_url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, base_url], env=os.environ | variables, capture_output=True, text=True, timeout=120)


def smoke(base_url: str, **variables: str) -> tuple[int, list[str], str]:
    """Its exit status, the checks that failed, and its last line."""
    done = run_smoke(base_url, **variables)
    lines = done.stdout.splitlines()
    return done.returncode, [line for line in lines if line.startswith("FAIL")], lines[-1]
