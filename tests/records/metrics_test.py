"""Tests of `codesign.records.metrics`."""

import dataclasses
import json
import math
import os
import pathlib
import tempfile

import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest

from codesign.records import metrics
from tests import fuzzing


@dataclasses.dataclass(frozen=True)
class _Config:
    folder: pathlib.Path = pathlib.Path("runs")
    rates: tuple[float, ...] = (0.1,)


class MetricsLogTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.path = (
            pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
            / "metrics.jsonl"
        )

    def _append(self, *records):
        with metrics.MetricsLog(self.path) as log:
            for record in records:
                log.append(record)

    def test_reopening_appends(self):
        self._append({"step": 1, "mask": "●○"}, {"step": 2})
        self._append({"step": 3})
        self.assertEqual(
            metrics.read_metrics(self.path),
            [{"step": 1, "mask": "●○"}, {"step": 2}, {"step": 3}],
        )

    def test_record_is_on_disk_before_the_log_is_closed(self):
        with metrics.MetricsLog(self.path) as log:
            log.append({"step": 1})
            self.assertEqual(metrics.read_metrics(self.path), [{"step": 1}])

    def test_truncated_last_line_loses_only_itself(self):
        self._append({"step": 1}, {"step": 2, "mask": "●○○●"})
        whole = self.path.read_bytes()
        second = whole.index(b"\n") + 1
        for end in range(second, len(whole)):  # Also inside a character of three bytes.
            self.path.write_bytes(whole[:end])
            self._append({"step": 3})
            steps = [record["step"] for record in metrics.read_metrics(self.path)]
            unfinished = end < len(whole) - 1
            self.assertEqual(steps, [1, 3] if unfinished else [1, 2, 3])

    def test_numbers_of_any_library_become_json(self):
        self._append(
            {
                "loss": jnp.float32(0.5),
                "count": np.int64(7),
                "good": np.bool_(True),
                "mask": jnp.array([1, 0]),
                "config": _Config(),
                "nan": math.nan,
                "nested": {"infinite": [np.float32(np.inf), 2.0]},
            }
        )
        (line,) = self.path.read_text().splitlines()
        expected = {
            "loss": 0.5,
            "count": 7,
            "good": True,
            "mask": [1, 0],
            "config": {"folder": "runs", "rates": [0.1]},
            "nan": None,
            "nested": {"infinite": [None, 2.0]},
        }
        self.assertEqual(json.loads(line), expected)

    def test_rejects_what_json_cannot_say_and_writes_nothing(self):
        with (
            metrics.MetricsLog(self.path) as log,
            self.assertRaisesRegex(TypeError, "set as JSON"),
        ):
            log.append({"step": 1, "bad": {1, 2}})
        self.assertEqual(self.path.read_bytes(), b"")

    def test_no_file_is_no_records(self):
        self.assertEqual(metrics.read_metrics(self.path), [])

    def test_what_is_no_record_is_skipped(self):
        keys = {"placement": str, "epoch": int}
        good = {"placement": "11", "epoch": 1, "accuracy": 0.5}
        self._append(good)
        with open(self.path, "ab") as file:
            for line in (
                *("[" * 100_000, '{"a":' * 100_000, "[1]", "1", "null", "{"),
                '{"qlacement": "11", "epoch": 1}',  # one flipped bit
                '{"placement": 11, "epoch": 1}',
                '{"placement": null, "epoch": 1}',
                '{"placement": "11", "epoch": true}',
                '{"placement": "11", "epoch": [1]}',
            ):
                file.write(line.encode() + b"\n")
            file.write(b"\xff\n")
        self._append(good)
        with self.assertLogs("absl", "WARNING") as said:
            records = metrics.read_metrics(self.path, keys)
        self.assertEqual(records, [good, good])
        self.assertLen(said.output, 12)

    def test_a_name_that_utf8_cannot_hold_comes_back(self):
        record = {"network": os.fsdecode(b"darknet:a\xff.cfg")}
        self._append(record)
        self.assertEqual(metrics.read_metrics(self.path), [record])

    @pytest.mark.slow
    def test_mutations_cost_no_record_of_another_line(self):
        sound = [{"step": i, "mask": "●○", "loss": [0.5, None]} for i in range(4)]
        self._append(*sound)
        records = dict(zip(self.path.read_bytes().split(b"\n"), sound, strict=False))
        keys = {"step": int, "mask": str}

        def is_sound(found):
            texts = self.path.read_bytes().split(b"\n")
            whole = [records[text] for text in texts if text in records]
            assert all(type(each["step"]) is int for each in found)
            return all(each in found for each in whole) and len(found) <= len(texts)

        def read(path):
            return metrics.read_metrics(path, keys)

        self.assertEqual(fuzzing.check(read, self.path, accepts=is_sound), 300)


if __name__ == "__main__":
    absltest.main()
