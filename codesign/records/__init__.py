"""What is kept on disk: atomic files, a checksummed journal, metrics, a job's folder."""

from codesign.records.files import StrPath, jsonable, write_atomic
from codesign.records.journal import FileJournal, JournalDamaged, read_header
from codesign.records.metrics import MetricsLog, read_metrics

__all__ = [
    "FileJournal",
    "JournalDamaged",
    "MetricsLog",
    "StrPath",
    "jsonable",
    "read_header",
    "read_metrics",
    "write_atomic",
]
