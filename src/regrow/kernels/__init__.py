"""The arithmetic of sparse layers behind one interface, chosen by measurement."""
