"""Tests of `codesign.records.files`."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from absl.testing import absltest, parameterized

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

    def test_a_name_that_utf8_cannot_hold_is_escaped(self):
        name = os.fsdecode(b"a\xff.cfg")
        files.write_atomic(self.path, json.dumps({"name": name}, ensure_ascii=False))
        self.assertEqual(self.path.read_text("utf-8"), '{"name": "a\\udcff.cfg"}')
        self.assertEqual(files.parse_json(self.path.read_bytes()), {"name": name})


_WRITER = """
import os, pathlib, signal, sys
from codesign.records import files
path = pathlib.Path(sys.argv[1])
def stop(*_):
    print("writing", flush=True)
    signal.pause()
files.os.replace = stop
files.write_atomic(path, "new")
"""


@unittest.skipUnless(files.fcntl, "leftovers are recognised by POSIX's locks")
class UnfinishedTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def _begin(self):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(self.folder / "report.html")],
            stdout=subprocess.PIPE,
        )
        self.enterContext(writer)
        self.addCleanup(writer.kill)
        assert writer.stdout is not None
        self.assertEqual(writer.stdout.readline(), b"writing\n")
        return writer

    def test_what_a_kill_leaves_is_cleared_and_never_what_is_being_written(self):
        others = ["report.html", ".report.html.tmp", ".lock", "a.0123abcd.tmp"]
        for name in others:
            (self.folder / name).touch()
        killed, alive = self._begin(), self._begin()
        killed.kill()
        killed.wait()
        self.assertLen(os.listdir(self.folder), len(others) + 2)
        files.clear_unfinished(self.folder)  # both are kept while one is written
        self.assertLen(os.listdir(self.folder), len(others) + 2)
        alive.kill()
        alive.wait()
        files.clear_unfinished(self.folder)
        self.assertCountEqual(os.listdir(self.folder), others)

    def test_folders_are_cleared_and_links_unlinked(self):
        whole = self.folder / "whole"
        whole.mkdir()
        (whole / "kept").touch()
        (self.folder / ".7.0123abcd.tmp" / "state").mkdir(parents=True)
        (self.folder / ".8.0123abcd.tmp").symlink_to(whole)
        files.clear_unfinished(self.folder)
        self.assertEqual(os.listdir(self.folder), ["whole"])
        self.assertEqual(os.listdir(whole), ["kept"])

    def test_one_may_write_while_another_does(self):
        self._begin()
        files.write_atomic(self.folder / "report.html", "mine")
        self.assertEqual((self.folder / "report.html").read_text(), "mine")


class ParseJsonTest(parameterized.TestCase):
    @parameterized.parameters("[" * 100_000, '{"a":' * 100_000, "", b"\xff", "1" * 5000)
    def test_whatever_is_wrong_is_a_value_error(self, text):
        with self.assertRaises(ValueError) as raised:
            files.parse_json(text)
        self.assertIs(type(raised.exception), ValueError)

    @parameterized.parameters("[", '{"a[": ', '["\\"]}{", ')
    def test_nesting_is_bounded(self, start):
        end = "}" if start[0] == "{" else "]"
        for encode in (str, str.encode):
            found = files.parse_json(encode(start * 200 + "7" + end * 200))
            self.assertLen(found, 2 if "," in start else 1)
            with self.assertRaisesRegex(ValueError, "nested too deeply"):
                files.parse_json(encode(start * 201 + "7" + end * 201))
        many = "[" + ", ".join([start + "7" + end] * 1000) + "]"
        self.assertLen(files.parse_json(many), 1000)


if __name__ == "__main__":
    absltest.main()
