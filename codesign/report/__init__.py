"""What people see of an experiment: results.json, tables, figures, one HTML page.

`plots` and `canvas`, which need Matplotlib, are imported by name.
"""

from codesign.report.format import (
    format_mask,
    format_percent,
    format_quantity,
    format_si,
)
from codesign.report.page import Card, Figure, Paragraph, Section, render_page
from codesign.report.progress import Progress
from codesign.report.quantity import Quantity
from codesign.report.results import Quantities, Results, environment
from codesign.report.table import Column, Row, Table

__all__ = [
    "Card",
    "Column",
    "Figure",
    "Paragraph",
    "Progress",
    "Quantities",
    "Quantity",
    "Results",
    "Row",
    "Section",
    "Table",
    "environment",
    "format_mask",
    "format_percent",
    "format_quantity",
    "format_si",
    "render_page",
]
