"""Launchers, one a study: `python -m experiments.NAME`."""

import signal
import sys

if (
    sys.argv[0] == "-m"
):  # Ctrl-C while a launcher is imported ends it without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
