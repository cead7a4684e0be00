"""Simulators of one tilt image, behind one protocol (:mod:`tlgen.simulate.engine`)."""
