"""HTML pages and pictures that the programs write: templates, charts, pictures, colours."""
