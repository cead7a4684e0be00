"""Particle lists of the field's programs, one module a format.

:mod:`~catalogs.particle_formats.base` says what a format is, :mod:`~catalogs.particle_formats.registry` lists
them, and :mod:`~catalogs.particle_formats.files` reads and writes; :func:`catalogs.particles.read` is the way
in.
"""
