"""The application: it registers, and starts nothing."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.core.signals import setting_changed

__all__ = ["MeshlibConfig"]


class MeshlibConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """``"meshlib_django"`` in ``INSTALLED_APPS``."""

    name = "meshlib_django"
    label = "meshlib_django"
    verbose_name = "meshlib"

    def ready(self) -> None:
        from meshlib_django.checks import check_settings
        from meshlib_django.settings import changed, register

        checks.register(check_settings, "meshlib")
        setting_changed.connect(changed, dispatch_uid="meshlib_django")
        register()
