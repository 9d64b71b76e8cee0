"""Kill -9 at random moments, run again, compare: `python -m tests.benchmarks.kills --crawl-root FOLDER --crawl NAME`.

One corpus is built without interruption, another is killed with all its processes ten times at moments drawn from the
first one's duration, then finished. Every file of both must be equal (telemetry, which is true of one run, aside).
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.tasks.documents import tree


def command(options: argparse.Namespace, root: Path) -> list[str]:
    source = ["--base-url", str(options.crawl_root.resolve()), "--crawl", options.crawl, "--root", str(root)]
    fixed = ["--set", "dataset.version=v1", "--set", "environment.workers=2"]
    return [str(Path(sys.executable).with_name("gristmill")), "corpus", "--json", *source, *fixed, *options.more]


def run(options: argparse.Namespace, root: Path, limit: float | None) -> bool:
    """Whether the command came to its end before it was killed."""
    with subprocess.Popen(command(options, root), stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            if process.wait(limit) != 0:
                raise SystemExit(f"the corpus flow failed with exit code {process.returncode}")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return False
        return True


def corpus_files(root: Path) -> dict[str, str]:
    kept = ("stages", "datasets", "indexes", "listings")
    return {path: digest for path, digest in tree(root).items() if path.split("/")[0] in kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crawl-root", type=Path, required=True)
    parser.add_argument("--crawl", required=True)
    parser.add_argument("--work", type=Path, default=Path("gristmill-data/kills"))
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("more", nargs="*", help="further arguments of `gristmill corpus`, after --")
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    started = time.monotonic()
    run(options, options.work / "whole", None)
    duration = time.monotonic() - started
    chance = random.Random(options.seed)
    kills = 0
    while kills < options.kills and not run(options, options.work / "killed", chance.uniform(2, 0.6 * duration)):
        kills += 1
        print(f"killed {kills} times", flush=True)
    run(options, options.work / "killed", None)
    whole, killed = corpus_files(options.work / "whole"), corpus_files(options.work / "killed")
    different = sorted(path for path in whole.keys() | killed.keys() if whole.get(path) != killed.get(path))
    print(f"{duration:.0f} s undisturbed; {kills} kills; {len(whole)} files; {len(different)} differ")
    print("\n".join(different[:20]))
    raise SystemExit(bool(different))


if __name__ == "__main__":
    main()
