"""The microscope: scattering, ice, optics, detectors. Both engines use it."""
