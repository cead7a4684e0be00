"""Particle lists of the field's programs, one module a format.

:mod:`~catalogs.formats.base` says what a format is, :mod:`~catalogs.formats.registry` lists them, and
:mod:`~catalogs.formats.files` reads and writes; :func:`catalogs.particles.read` is the way in.
"""
