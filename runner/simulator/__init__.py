"""A local Messages API for trial runs without a key, and for every fault the tests need."""

from runner.simulator.faults import FaultKind
from runner.simulator.options import SimulatorOptions
from runner.simulator.simulator import Simulator, SimulatorError

__all__ = ["FaultKind", "Simulator", "SimulatorError", "SimulatorOptions"]
