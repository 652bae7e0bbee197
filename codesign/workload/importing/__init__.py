"""Behind the doors `workload.keras`, `workload.onnx` and `workload.darknet`."""
