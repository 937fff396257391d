"""httpx and httpx2, which have one shape and classes of their own: everything here takes the module as an argument."""
