"""What the benchmarks report: times, and results as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def summarise_times(times: Any) -> dict[str, float]:
    """Return the median and the 95th percentile of times."""
    return {"median": float(np.median(times)), "p95": float(np.percentile(times, 95))}


def write_results(found: dict[str, Any], path: Path | None) -> None:
    """Print results as JSON, and write them to a file if one is given."""
    text = json.dumps(found, indent=2)
    print(text)
    if path:
        path.write_text(text)
