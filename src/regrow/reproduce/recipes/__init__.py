"""One file a system: data, networks, methods compared, seeds, and what must come out."""
