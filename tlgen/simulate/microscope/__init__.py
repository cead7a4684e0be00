"""Model of the microscope, used by both engines: scattering, ice, optics and detectors."""
