"""Segment a folder of damaged files and some good ones, as a user would, and say what came of it.

    python benchmarks/damaged.py --files 1000

Every good file has to be done and every damaged one is either read or named in one line; the exit
status is 2. Formats whose package is not installed are left out (`pip install -e ".[formats]"`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from format_samples import FORMATS

GOOD = 50
"""Good files among the damaged ones."""


def damage(data: bytes, chance: random.Random) -> bytes:
    """Return a file with bytes changed, doubled, cut out or cut off, most of them in its head."""
    content = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 6))):
        at = chance.randrange(min(len(content), chance.choice((64, 512, 10**9))))
        kind = chance.choice(("byte", "byte", "word", "cut", "double", "end"))
        if kind == "byte":
            content[at] = chance.randrange(256)
        elif kind == "word":
            content[at : at + 4] = chance.choice((0, 2**31 - 1, 2**32 - 1)).to_bytes(4, "little")
        elif kind == "cut":
            del content[at : at + chance.randrange(1, 64)]
        elif kind == "double":
            content[at:at] = content[at : at + chance.randrange(1, 64)]
        elif len(content) > 100:
            del content[max(50, at) :]
    return bytes(content)


def fill(folder: Path, count: int) -> tuple[list[str], list[str]]:
    """Write good and damaged files of all formats; return the names of both."""
    chance = random.Random(0)
    kinds = [kind for kind in FORMATS if not kind.package or importlib.util.find_spec(kind.package)]
    samples = []
    for kind in kinds:
        with tempfile.TemporaryDirectory() as place:
            path = kind.write(Path(place)).path
            if path.is_file() and path.suffix not in (".zip", ".oif"):
                samples.append((path.name.removeprefix("a"), path.read_bytes()))
    good, bad = [], []
    for number in range(GOOD + count):
        suffix, data = samples[number % len(samples)]
        name = f"{'good' if number < GOOD else 'damaged'}{number}{suffix}"
        (folder / name).write_bytes(data if number < GOOD else damage(data, chance))
        (good if number < GOOD else bad).append(name)
    return good, bad


def main() -> None:
    """Write the folder, run the command, and print what came of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=1000, help="damaged files (default: 1000)")
    parser.add_argument("--model", default="nuclei")
    values = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="damaged-"))
    (folder / "in").mkdir()
    good, bad = fill(folder / "in", values.files)
    command = [sys.executable, "-m", "napari_unet", "segment", str(folder / "in")]
    command += [str(folder / "out"), "--model", values.model, "--no-survey", "--device", "cpu"]
    began = time.monotonic()
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    done = re.findall(r"^(?:.*[/\\])?((?:good|damaged)\d+\S*?): \d", run.stdout, re.MULTILINE)
    skipped = [line for line in run.stderr.splitlines() if "skipped: " in line]
    named = [name for name in good + bad if sum(name in line for line in skipped) == 1]
    result = {
        "exit status": run.returncode,
        "good files": len(good),
        "good files done": sum(name.startswith("good") for name in done),
        "damaged files": len(bad),
        "read all the same": sum(name.startswith("damaged") for name in done),
        "skipped, with one line each": len(named),
        "lines": len(skipped),
        "with a traceback": run.stderr.count("Traceback"),
        "last line": run.stdout.strip().splitlines()[-1],
        "seconds": round(seconds),
        "peak memory, MB": peak_mb(),
    }
    print(json.dumps(result, indent=1))
    complete = result["good files done"] == len(good) and run.returncode == 2
    complete = complete and len(named) == len(skipped) and len(done) + len(named) == len(good + bad)
    if not complete:
        (folder / "stderr.txt").write_text(run.stderr)
        (folder / "stdout.txt").write_text(run.stdout)
        sys.exit(f"not as it should be; see {folder}")
    shutil.rmtree(folder)


def peak_mb() -> int | None:
    """Return the most memory that the command had; None where the system does not say."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


if __name__ == "__main__":
    main()
