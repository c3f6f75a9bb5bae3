"""The benchmarks: `python -m bench [NAME …]`. Prints tables; never fails a run because of a figure."""

from __future__ import annotations

import importlib
import sys

from bench.rig import machine

NAMES = ("drain", "growth", "latency", "asking", "history", "together", "formats", "devices")
"""In the order in which they run; each a module beside this one with a `main`."""


def main() -> None:
    """Run the benchmarks named on the command line, else all; `NAME=NUMBER` gives its first argument."""
    wanted = sys.argv[1:] or list(NAMES)
    unknown = [word for word in wanted if word.partition("=")[0] not in NAMES]
    if unknown:
        sys.exit(f"bench: there is no {unknown[0]}: choose from {', '.join(NAMES)}")
    print(f"{machine()}")
    for word in wanted:
        name, _, number = word.partition("=")
        module = importlib.import_module(f"bench.{name}")
        module.main(int(number.replace("_", ""))) if number else module.main()


if __name__ == "__main__":
    main()
