"""The machine that figures were measured on, for all benchmarks."""

from __future__ import annotations

from catalogs.machine import Machine, machine

__all__ = ["Machine", "machine"]

if __name__ == "__main__":
    print(machine())
