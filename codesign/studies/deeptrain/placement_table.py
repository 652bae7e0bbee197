"""Every placement of a small problem, trained: exact regret for any optimiser."""

import csv
import dataclasses
import importlib.resources
import io
import json
import os
from typing import Any

import numpy as np

from codesign.records.files import parse_json
from codesign.search import points

PUBLISHED = "vgg11_digits.csv"  # beside this file
_EMPTY = ""  # a value that does not exist, as of a run that diverged


@dataclasses.dataclass(frozen=True, eq=False)
class PlacementTable:
    """All 2^C placements of a network, trained from S seeds.

    Rows are in the order of `points.all_points`: row i is the binary number i, site 1
    its highest digit. What a diverged run did not reach is NaN.

    Attributes:
        settings: Of the training; JSON.
        masks: `[2^C, C]` int8.
        seeds: `[S]`, of the training runs.
        validation: `[2^C, S, E]`, accuracy on the validation split after each epoch.
        loss: `[2^C, S, E]`, mean training loss of each epoch.
        test: `[2^C, S]`, accuracy on the test split after the last epoch.
        health: `[2^C, S, K]`, gradient over weight of each of the K kernels before any
            training; see `training.health`.
        seconds: `[2^C, S]`, wall time of each run.
    """

    settings: dict[str, Any]
    masks: np.ndarray
    seeds: np.ndarray
    validation: np.ndarray
    loss: np.ndarray
    test: np.ndarray
    health: np.ndarray
    seconds: np.ndarray

    @property
    def num_variables(self) -> int:
        """C."""
        return self.masks.shape[1]

    @property
    def accuracy(self) -> np.ndarray:
        """`[2^C, S]`, on the validation split after the last epoch; NaN if it diverged."""
        return self.validation[:, :, -1]

    def row(self, x: np.ndarray) -> int:
        """Row of a placement `[C]`."""
        return int(points.encode(points.checked_point(x, self.num_variables)), 2)

    def objective(self, sparsity_penalty: float) -> np.ndarray:
        """`accuracy` - sparsity_penalty * |x|_1, `[2^C, S]`; -inf where a run diverged."""
        ones = self.masks.sum(axis=1)[:, None]
        value = self.accuracy - sparsity_penalty * ones
        return np.where(np.isnan(value), -np.inf, value)

    def to_csv(self) -> str:
        """Returns the table as CSV: settings in a comment, then one row a run."""
        out = io.StringIO()
        out.write(f"# {json.dumps(self.settings, sort_keys=True)}\n")
        writer = csv.writer(out, lineterminator="\n")
        num_epochs, num_kernels = self.validation.shape[2], self.health.shape[2]
        writer.writerow(
            ["placement", "seed"]
            + [f"validation_{e + 1}" for e in range(num_epochs)]
            + [f"loss_{e + 1}" for e in range(num_epochs)]
            + ["test", "seconds"]
            + [f"health_{k + 1}" for k in range(num_kernels)]
        )
        for i, mask in enumerate(self.masks):
            for s, seed in enumerate(self.seeds):
                texts = [
                    *_texts(self.validation[i, s], ".5g"),
                    *_texts(self.loss[i, s], ".4g"),
                    *_texts(self.test[i, s : s + 1], ".5g"),
                    *_texts(self.seconds[i, s : s + 1], ".2f"),
                    *_texts(self.health[i, s], ".4g"),
                ]
                writer.writerow([points.encode(mask), int(seed), *texts])
        return out.getvalue()


def _texts(numbers: np.ndarray, form: str) -> list[str]:
    return [_EMPTY if np.isnan(number) else format(number, form) for number in numbers]


def load(path: str | os.PathLike[str] | None = None) -> PlacementTable:
    """Reads a table that `PlacementTable.to_csv` made.

    Args:
        path: The file; None for the one that comes with the package: VGG-11 on digits.

    Raises:
        ValueError: If the file is not such a table, or not whole; names the line.
        OSError: If it cannot be read.
    """
    if path is None:
        resource = importlib.resources.files("codesign.studies.deeptrain") / PUBLISHED
        name, text = PUBLISHED, resource.read_text()
    else:
        with open(path, encoding="utf-8") as file:
            name, text = os.fspath(path), file.read()
    head, _, body = text.partition("\n")
    try:
        settings = parse_json(head.removeprefix("# "))
        rows = list(csv.reader(io.StringIO(body)))
        columns, rows = rows[0], rows[1:]
        num_epochs = sum(c.startswith("validation_") for c in columns)
        num_kernels = sum(c.startswith("health_") for c in columns)
        num_variables = len(rows[0][0])
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"`path` (={name}) is not a table of placements ({error}); make one with "
            "`python -m experiments.placement_table`."
        ) from error
    masks = points.all_points(num_variables)
    seeds = sorted({row[1] for row in rows}, key=int)
    if len(rows) != len(masks) * len(seeds):
        raise ValueError(
            f"`path` (={name}) has {len(rows)} runs, not the {len(masks)} placements x "
            f"{len(seeds)} seeds of a whole table; go on with the launcher."
        )
    numbers = np.full(
        (len(masks), len(seeds), 2 * num_epochs + 2 + num_kernels), np.nan
    )
    seen = np.zeros(numbers.shape[:2], bool)
    for line, row in enumerate(rows, start=3):
        try:
            i, s = int(row[0], 2), seeds.index(row[1])
            numbers[i, s] = [float(t) if t != _EMPTY else np.nan for t in row[2:]]
        except (ValueError, IndexError) as error:
            raise ValueError(f"`path` (={name}), line {line}: {error}.") from error
        if seen[i, s]:
            raise ValueError(f"`path` (={name}), line {line}: this run is there twice.")
        seen[i, s] = True
    split = np.cumsum([num_epochs, num_epochs, 1, 1])
    validation, loss, test, seconds, health = np.split(numbers, split, axis=2)
    return PlacementTable(
        settings=settings,
        masks=masks,
        seeds=np.array([int(seed) for seed in seeds]),
        validation=validation,
        loss=loss,
        test=test[:, :, 0],
        health=health,
        seconds=seconds[:, :, 0],
    )
