"""Memory subsystems of chips that are sold, by name."""

from codesign import units
from codesign.hardware.memory.spec import MemorySpec
from codesign.records.named import Named

_CELL_UM2 = {  # 6T SRAM, high density, of one bit, by nm of the process
    14: 0.0499,  # Karl et al., Intel, ISSCC 2015
    12: 0.070,  # Wu et al., TSMC 16 nm, IEDM 2013
    8: 0.040,  # Song et al., Samsung 10 nm, ISSCC 2016; assumed, range 0.026..0.040
    7: 0.027,  # Chang et al., TSMC, ISSCC 2017
    5: 0.021,  # Chang et al., TSMC, ISSCC 2020
}
_ARRAY_EFFICIENCY = 0.5  # assumed: cells in a cache's area; range 0.3..0.7


def _system(
    capacity_mb: float,
    bandwidth_gb_per_s: float,
    tera_flops: float,
    *,
    die_mm2: float,
    node_nm: int,
    value_bits: int = 32,
) -> MemorySpec:
    capacity_bytes = capacity_mb * units.MIB
    byte_m2 = 8 * _CELL_UM2[node_nm] * units.UM2 / _ARRAY_EFFICIENCY
    return MemorySpec(
        capacity_bytes=capacity_bytes,
        bandwidth_bytes_per_s=bandwidth_gb_per_s * units.GB_PER_S,
        throughput_ops_per_s=tera_flops * units.TERA,
        cache_area_m2_per_byte=byte_m2,
        logic_area_m2=die_mm2 * units.MM2 - capacity_bytes * byte_m2,
        value_bits=value_bits,
    ).checked()


# Last-level cache in MB, memory in GB/s, peak in TFLOP/s, the numbers of data sheets. The
# memory model charges a MAC one operation of this peak (Tsai 2021), where a data sheet
# counts two FLOPs, so its compute times are half of what the peak allows. Dies in mm2 as
# TechPowerUp's and WikiChip's databases have them, of all chiplets together.
_SYSTEMS = {
    # Tsai 2021, Table 5.2, where the LLC of the 2080 Ti stands as 55 for TU102's 5.5 MB
    # (NVIDIA Turing white paper, 2018).
    "i9-10980XE": _system(24.75, 94, 2.765, die_mm2=485, node_nm=14),
    "RTX 2080 Ti": _system(5.5, 616, 13.45, die_mm2=754, node_nm=12),
    "Radeon 6900 XT": _system(128, 512, 23.04, die_mm2=520, node_nm=7),
    "A100": _system(40, 1555, 19.45, die_mm2=826, node_nm=7),
    # NVIDIA H100 and H200 SXM data sheets (2023, 2024): FP32; L2 of the GH100 white paper.
    "H100": _system(50, 3350, 67, die_mm2=814, node_nm=5),
    "H200": _system(50, 4800, 67, die_mm2=814, node_nm=5),
    # AMD Instinct MI300X data sheet (2023): FP32 vector, Infinity Cache, HBM3.
    "MI300X": _system(256, 5300, 163.4, die_mm2=8 * 115 + 4 * 370, node_nm=7),
    # Google Cloud TPU v5e documentation: bfloat16 peak and HBM; 128 MB of vector memory
    # (Austin et al., "How to Scale Your Model", 2025).
    "TPU v5e": _system(
        # assumed: no die is published; range 300..350 mm2.
        *(128, 819, 197),
        die_mm2=325,
        node_nm=5,
        value_bits=16,
    ),
    # NVIDIA Jetson AGX Orin 64 GB data sheet (2022): 2048 lanes at 1.3 GHz, FP32; 4 MB L2.
    "Jetson AGX Orin": _system(4, 204.8, 5.32, die_mm2=455, node_nm=8),
}
SYSTEMS = Named(_SYSTEMS)
