"""What a network asks of hardware, traced from its JAX function."""

from codesign.workload.graph import Workload
from codesign.workload.trace import trace

__all__ = ["Workload", "trace"]
