from __future__ import annotations

from bench.shapes import Case, Row

CASE = Case(
    "serving",
    "one request under gunicorn, gthread, one worker, kept alive; processor time of the worker",
    (
        Row("Django with meshlib_django ÷ without", "Django in the mesh", "Django", at_most=1.03),
        Row("Flask with meshlib_flask ÷ without", "Flask in the mesh", "Flask", at_most=1.03),
    ),
)
