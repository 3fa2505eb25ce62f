"""The documentation site builds without a network, with search and dark mode, and every link of it leads somewhere."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Nothing listens there, so whatever wanted the network would fail.
NO_NETWORK = dict.fromkeys(
    ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"
)


def test_the_site_builds_offline_and_every_link_leads_somewhere() -> None:
    command = [ROOT / "scripts" / "docs.sh"]
    done = subprocess.run(command, env=os.environ | NO_NETWORK, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(" 0 broken links\n")
    site = ROOT / ".docs" / "site"
    assert "your first payment" in (site / "search.json").read_text().lower()
    assert 'data-md-color-scheme="slate"' in (site / "docs/tutorial/first-payment.html").read_text()
