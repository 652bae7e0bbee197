"""Tests of `codesign.records.files`."""

import os
import pathlib
import tempfile

from absl.testing import absltest

from codesign.records import files


class WriteAtomicTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.path = (
            pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
            / "results.json"
        )

    def test_replaces_text_and_bytes(self):
        files.write_atomic(self.path, "21 µs")
        self.assertEqual(self.path.read_text(encoding="utf-8"), "21 µs")
        files.write_atomic(self.path, b"\x00\xff")
        self.assertEqual(self.path.read_bytes(), b"\x00\xff")
        self.assertEqual(os.listdir(self.path.parent), ["results.json"])

    def test_interrupted_write_keeps_the_old_file_and_leaves_nothing_behind(self):
        files.write_atomic(self.path, "old")
        for name in ("replace", "fsync"):
            for interruption in (OSError("disk full"), KeyboardInterrupt()):
                with (
                    self.subTest(name, interruption=interruption),
                    absltest.mock.patch.object(
                        files.os, name, side_effect=interruption
                    ),
                    self.assertRaises(type(interruption)),
                ):
                    files.write_atomic(self.path, "new")
                self.assertEqual(self.path.read_text(), "old")
                self.assertEqual(os.listdir(self.path.parent), ["results.json"])

    def test_follows_a_symbolic_link(self):
        link = self.path.with_name("latest.json")
        link.symlink_to(self.path.name)
        files.write_atomic(link, "new")
        self.assertTrue(link.is_symlink())
        self.assertEqual(self.path.read_text(), "new")


if __name__ == "__main__":
    absltest.main()
