"""Engines that simulate tilt images; all follow one protocol (:mod:`tlgen.simulate.protocol`)."""
