"""Who tells us what the mesh is: each source yields parts of the configuration."""
