# The module is requests' own: see ``__init__.py``.
from requests import packages as _packages

urllib3 = _packages.urllib3  # type: ignore[attr-defined]
