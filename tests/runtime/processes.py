"""Looking at processes from outside."""

import time
from pathlib import Path


def gone(pid):
    """Whether a process is dead (a zombie whose parent has not looked yet is dead, too)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state in "ZX"


def until(condition, timeout=15):
    """Wait for something that other processes do."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {timeout} s"
        time.sleep(0.02)
