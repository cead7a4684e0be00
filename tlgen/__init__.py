"""Makes a corpus: structures, variants, packing, simulation, reconstruction, labels."""
