"""Where everything of asv_benchmarks lies. Whoever imports this module can import `benchmarks` as well."""

from __future__ import annotations

import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
ASV = TOOLS.parent  # asv.conf.json, benchmarks, results
ROOT = ASV.parent
PAGES, ASSETS = ASV / "pages", ASV / "assets"

sys.path.insert(0, str(ASV))
