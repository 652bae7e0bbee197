"""Differentiable co-design of neural networks and the hardware that trains them.

Subpackages load on first use: `import codesign; codesign.models.create("vgg11")`.
"""

import importlib
from types import ModuleType

__version__ = "0.2.0"
_SUBPACKAGES = (
    *("records", "numerics", "kernels", "models", "workload", "hardware", "data"),
    *("training", "objective", "search", "report", "studies", "types", "units"),
)
__all__ = ["__version__", *_SUBPACKAGES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> ModuleType:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBPACKAGES])
