"""What the mesh is: frozen values, no behaviour, no I/O."""
