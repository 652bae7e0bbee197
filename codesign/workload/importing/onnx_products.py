"""Convolutions and matrix products of ONNX: products of data with weights, or of data."""

import math

from codesign.workload.importing.onnx_network import Network, Node
from codesign.workload.importing.recorder import Value
from codesign.workload.op import Shape


def _kernel(net: Network, node: Node) -> Shape:
    kernel = net.constants.get(node.inputs[1])
    if kernel is None or node.inputs[0] not in net.values:
        raise ValueError("its weights must be constants and its input data.")
    return kernel.shape


def _weights(net: Network, node: Node, first: int = 1) -> tuple[str, ...]:
    bias = net.biases.get(node.outputs[0], ("", ""))[0]
    return net.weights([*node.inputs[first:], bias])


def _groups(net: Network, node: Node, channels: int, filters: int, window) -> int:
    """How many groups of channels do not see each other; it and the window are checked."""
    groups = node.attributes.get("group", 1)
    if groups < 1 or channels % groups or filters % groups:
        raise ValueError(
            f"its `group` (={groups}) must divide {channels} channels and {filters} "
            "filters."
        )
    told = node.attributes.get("kernel_shape", window)
    if [*told] != [*window]:
        raise ValueError(
            f"its `kernel_shape` (={[*told]}) is not that of its weights, {[*window]}."
        )
    return groups


def conv(net: Network, node: Node) -> Value:
    """Conv: a kernel [K, C / groups, ...]."""
    filters, channels, *window = _kernel(net, node)
    given = net.shape(node.inputs[0])[-1]
    if channels * _groups(net, node, given, filters, window) != given:
        raise ValueError(
            f"its weights take {channels} channels a group, of {given} that it reads."
        )
    return net.recorder.conv(
        node.name,
        net.values[node.inputs[0]],
        net.shape(node.outputs[0]),
        (*window, channels, filters),
        _weights(net, node),
    )


def conv_transpose(net: Network, node: Node) -> Value:
    """ConvTranspose: a kernel [C, K / groups, ...]."""
    channels, filters, *window = _kernel(net, node)
    groups = _groups(net, node, channels, filters, window)
    return net.recorder.conv(
        node.name,
        net.values[node.inputs[0]],
        net.shape(node.outputs[0]),
        (*window, channels // groups, filters * groups),
        _weights(net, node),
        transposed=True,
    )


def gemm(net: Network, node: Node) -> Value:
    """Gemm: of data with a matrix, or of data without a bias."""
    if node.inputs[1] in net.values and not any(node.inputs[2:]):
        terms = net.shapes[node.inputs[0]][0 if node.attributes.get("transA") else 1]
        shape = net.shape(node.outputs[0])
        return net.recorder.matmul(node.name, net.data(node), shape, terms)
    kernel = _kernel(net, node)
    if any(name in net.values for name in node.inputs[1:]):
        raise ValueError("its bias must be a constant.")
    if node.attributes.get("transA", 0):
        raise ValueError("it transposes its data; transpose it before.")
    fan_in, fan_out = reversed(kernel) if node.attributes.get("transB", 0) else kernel
    return net.recorder.dense(
        node.name,
        net.values[node.inputs[0]],
        net.shape(node.outputs[0]),
        (fan_in, fan_out),
        _weights(net, node),
    )


def matmul(net: Network, node: Node) -> Value:
    """MatMul: of two maps, or of a map with weights from the left or from the right."""
    left, right = node.inputs
    if left in net.values and right in net.values:
        operands = [net.values[left], net.values[right]]
        shape, num_terms = net.shape(node.outputs[0]), net.shapes[left][-1]
        return net.recorder.matmul(node.name, operands, shape, num_terms)
    data, weight = (left, right) if left in net.values else (right, left)
    net.shape(data)  # raises where it is open
    x, kernel = net.shapes[data], net.constants[weight].shape
    summed = -2 if data == right and len(x) > 1 else -1
    # Before their last two axes, both have groups that do not see each other; what only
    # the kernel has is as if there were more columns.
    grouped = [
        axis
        for axis in range(-min(len(x), len(kernel)), -2)
        if x[axis] == kernel[axis] > 1
    ]
    axes = range(-len(x), 0)
    rows = tuple(x[axis] for axis in axes if axis not in (summed, *grouped))
    rows = rows[1:] if rows[:1] == (1,) else rows  # the batch
    groups, fan_in = math.prod(x[axis] for axis in grouped), x[summed]
    fan_out = math.prod(kernel) // fan_in  # of all groups
    made = net.recorder.dense(
        node.name,
        net.recorder.view(net.values[data], (*rows, groups * fan_in)),
        (*rows, fan_out),
        (fan_in, fan_out),
        _weights(net, node) if weight == right else net.weights([weight]),
        grouped=groups > 1,
    )
    return net.recorder.view(made, net.shape(node.outputs[0]))
