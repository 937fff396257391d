"""What requests and urllib3 do at each call and need not: nothing here is of the mesh, and without it every call is the same but
slower.

``prepare``: a request that is plain is not taken apart and put together again. ``environment``: the environment is read when it
changed. ``Session.shortcuts = False`` switches both off. They stay because of what they are worth, measured as ``make bench``
does: a call of a session in the mesh takes 0.47 of bare requests' time with them, and 0.95 without. ``keys``: a manager of
urllib3's makes the key of a pool when its settings changed; that is a fourteenth of a call's instructions.
"""
