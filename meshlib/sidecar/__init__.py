"""Whether somebody else carries this process's calls: a sidecar beside it, found by evidence or told by configuration.

``signatures`` what each mesh looks like, as data; ``environment`` what variables tell; ``evidence`` what can be seen, as values,
and ``collect``, ``proc`` and ``probe`` how it is seen; ``detect`` what follows from it; ``watch`` keeps the answer true.
"""
