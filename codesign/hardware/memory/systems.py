"""Memory subsystems of chips that are sold, by name."""

from codesign import units
from codesign.hardware.memory.spec import MemorySpec


def _system(
    capacity_mb: float,
    bandwidth_gb_per_s: float,
    tera_flops: float,
    value_bits: int = 32,
) -> MemorySpec:
    return MemorySpec(
        capacity_bytes=capacity_mb * units.MIB,
        bandwidth_bytes_per_s=bandwidth_gb_per_s * units.GB_PER_S,
        throughput_ops_per_s=tera_flops * units.TERA,
        value_bits=value_bits,
    ).checked()


# Last-level cache in MB, memory in GB/s, peak in TFLOP/s, the numbers of data sheets. The
# memory model charges a MAC one operation of this peak (Tsai 2021), where a data sheet
# counts two FLOPs, so its compute times are half of what the peak allows.
SYSTEMS = {
    # Tsai 2021, Table 5.2, where the LLC of the 2080 Ti stands as 55 for TU102's 5.5 MB
    # (NVIDIA Turing white paper, 2018).
    "i9-10980XE": _system(24.75, 94, 2.765),
    "RTX 2080 Ti": _system(5.5, 616, 13.45),
    "Radeon 6900 XT": _system(128, 512, 23.04),
    "A100": _system(40, 1555, 19.45),
    # NVIDIA H100 and H200 SXM data sheets (2023, 2024): FP32; L2 of the GH100 white paper.
    "H100": _system(50, 3350, 67),
    "H200": _system(50, 4800, 67),
    # AMD Instinct MI300X data sheet (2023): FP32 vector, Infinity Cache, HBM3.
    "MI300X": _system(256, 5300, 163.4),
    # Google Cloud TPU v5e documentation: bfloat16 peak and HBM; 128 MB of vector memory
    # (Austin et al., "How to Scale Your Model", 2025).
    "TPU v5e": _system(128, 819, 197, value_bits=16),
    # NVIDIA Jetson AGX Orin 64 GB data sheet (2022): 2048 lanes at 1.3 GHz, FP32; 4 MB L2.
    "Jetson AGX Orin": _system(4, 204.8, 5.32),
}
