"""Studies over many designs at once: each runs, draws and reports one."""
