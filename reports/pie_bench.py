"""Scores as the file that PIE-Bench's public evaluation writes, for whatever reads that one."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Final

from ..experiments.results import Results
from ..files import whole

COLUMNS: Final[Mapping[str, str]] = {
    "pie-structure": "structure_distance",
    "pie-psnr": "psnr_unedit_part",
    "pie-lpips": "lpips_unedit_part",
    "pie-mse": "mse_unedit_part",
    "pie-ssim": "ssim_unedit_part",
    "pie-clip-source": "clip_similarity_source_image",
    "pie-clip-whole": "clip_similarity_target_image",
    "pie-clip-edited": "clip_similarity_target_image_edit_part",
}
"""What evaluation/evaluate.py of cure-lab/PnPInversion calls our metrics, in its order."""


def pie_bench_csv(results: Results, path: Path) -> None:
    """Write the scores of a comparison's edits to `path`: a heading, and a line for each case in the order of the data set.

    The first column is file_id, then there is one for each row and each metric of COLUMNS that was asked for, "{row}|{metric}".
    A score is the mean over the row's seeds; "nan" where it is not defined, nothing where there is none: the cell failed, has
    not been run, or the metric's weights were missing. Lines end with a carriage return and a line feed, as the public ones.
    Raises ValueError if none of these metrics was asked for, OSError if the file cannot be written.
    """
    asked = [name for name in COLUMNS if name in results.manifest.metrics.get("edit", ())]
    if not asked:
        raise ValueError(f"the run has none of PIE-Bench's metrics; ask for {', '.join(COLUMNS)}")
    rows = [row.name for row in results.manifest.rows if row.task == "edit"]
    found: dict[tuple[str, str, str], list[float]] = {}
    for record in results.records:
        for name, score in record.scores.items():
            found.setdefault((record.case, record.row, name), []).append(score)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["file_id", *(f"{row}|{COLUMNS[name]}" for row in rows for name in asked)])
    for case in results.manifest.cases:
        scores = (found.get((case, row, name)) for row in rows for name in asked)
        writer.writerow([case, *(fmean(score) if score else None for score in scores)])
    with whole(path) as file:
        file.write(text.getvalue().encode("utf-8"))
