"""What a job prints when it is done."""

import sys
from collections.abc import Sequence

import rich.console

from codesign.records.files import encoded
from codesign.report.format import one_line
from codesign.report.table import Table


def show(tables: Sequence[Table], summary: str, where: str) -> None:
    """Prints tables, a paragraph and a line that is never broken, to be copied.

    On a terminal they keep to its width; a pipe gets every line whole, and nobody
    nothing. A notebook gets the last line alone, as it shows the tables of what it is
    given.
    """
    if sys.stdout is None:
        return
    summary, where = one_line(summary), encoded(where).decode()
    console = rich.console.Console(highlight=False, markup=False)
    if console.is_jupyter:
        print(where, flush=True)
        return
    if not sys.stdout.isatty():
        texts = (f"{table.to_text()}\n" for table in tables)
        print(*texts, summary, where, sep="\n", flush=True)
        return
    for table in tables:
        console.print(table.to_rich(console.width), end="\n\n")
    console.print(summary)
    console.print(where, soft_wrap=True)
