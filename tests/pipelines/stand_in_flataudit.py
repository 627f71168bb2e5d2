"""Stands in for the command line: does as STAND_IN_* says, and writes down how it was called."""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    Path(os.environ["STAND_IN_CALLS"]).write_text(json.dumps(sys.argv[1:]), encoding="utf-8")
    if "STAND_IN_REPORT" in os.environ:
        out = Path(sys.argv[sys.argv.index("--out") + 1])
        out.mkdir()
        (out / "report.md").write_text(os.environ["STAND_IN_REPORT"], encoding="utf-8")
    print(os.environ["STAND_IN_ANSWER"])
    sys.exit(int(os.environ["STAND_IN_CODE"]))


if __name__ == "__main__":
    main()
