"""Draw the table of docs/results.md from the published runs' files: `make results`."""

from __future__ import annotations

import argparse

from fetchlab.config import ROOT, config_hash
from fetchlab.report.results import published, redrawn
from fetchlab.report.runs import read_run


def main() -> None:
    """Write the document."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    path = ROOT / "docs" / "results.md"
    folders = [folder.relative_to(ROOT) for folder in published(ROOT / "docs" / "results")]
    runs = [read_run(ROOT / folder, config_hash) for folder in folders]
    path.write_text(redrawn(path.read_text(), runs))
    print(f"{path.relative_to(ROOT)}: {len(runs)} runs")


if __name__ == "__main__":
    main()
