"""Temperature, clocks and throttling: what slowed a device down while it was measured."""

from trimtab_agent.heat.preflight import preflight
from trimtab_agent.heat.watch import HeatWatch

__all__ = ["HeatWatch", "preflight"]
