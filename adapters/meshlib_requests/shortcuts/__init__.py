"""What requests does at each call and need not: nothing here is of the mesh, and without it every call is the same but slower.

``prepare``: a request that is plain is not taken apart and put together again. ``environment``: the environment is read when it
changed. ``Session.shortcuts = False`` switches both off.
"""
