"""What a network asks of hardware, traced from its JAX function."""

from codesign.workload.gradient import GradientTrace, trace_gradient
from codesign.workload.graph import Workload
from codesign.workload.trace import trace

__all__ = ["GradientTrace", "Workload", "trace", "trace_gradient"]
