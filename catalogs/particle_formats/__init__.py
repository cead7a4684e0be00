"""Particle lists of other programs, one module per format.

:mod:`~catalogs.particle_formats.base` defines a format, :mod:`~catalogs.particle_formats.registry` lists all
formats, and :mod:`~catalogs.particle_formats.files` reads and writes files. Users call
:func:`catalogs.particles.read`.
"""
