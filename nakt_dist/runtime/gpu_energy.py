"""The energy that a GPU takes, where its driver tells."""

import ctypes


def joules_taken(uuid: str) -> float | None:
    """Returns the joules that a GPU has taken since its driver was loaded; None where none tells.

    They are the whole GPU's, whoever works on it. NVIDIA's library is asked, which comes with the
    driver: no package is needed.

    Args:
        uuid: what ``gpu_uuid`` returned; empty of a CPU.
    """
    if not uuid:
        return None
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    if library.nvmlInit_v2() != 0:
        return None
    try:
        gpu, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
        is_told = (
            library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(gpu)) == 0
            and library.nvmlDeviceGetTotalEnergyConsumption(gpu, ctypes.byref(millijoules)) == 0
        )
        return millijoules.value / 1000 if is_told else None
    finally:
        library.nvmlShutdown()
