"""What a network asks of hardware: `trace` any JAX function, or import a model.

`workload.keras`, `workload.onnx` and `workload.darknet` are the importers;
`training_iteration` expands what they return.
"""

from codesign.workload.gradient import GradientTrace, trace_gradient
from codesign.workload.graph import Workload, build
from codesign.workload.iteration import Program, training_iteration
from codesign.workload.op import Op
from codesign.workload.trace import trace

__all__ = [
    "GradientTrace",
    "Op",
    "Program",
    "Workload",
    "build",
    "trace",
    "trace_gradient",
    "training_iteration",
]
