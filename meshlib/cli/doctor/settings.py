"""Checks of what is configured: keys, variables, extras, files, and what of it is not honoured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from meshlib.cli.doctor.case import Case, named
from meshlib.cli.doctor.catalogue import found, install
from meshlib.cli.doctor.certificates import Validity
from meshlib.cli.findings import Finding
from meshlib.observe.facts import FileFacts, pairs_of
from meshlib.observe.surroundings import MODULES

__all__ = ["certificates", "configuration", "extras", "files", "ignored", "joining", "variables"]

#: Less than this share of its time left, and less than so many seconds: a certificate that lives for a day is renewed by the
#: hour, one that lives for a year in its last days.
_SHARE, _WEEK = 0.1, 7 * 86400.0

_DAY = 86400.0


def configuration(case: Case) -> Iterator[Finding]:
    """What is wrong with it, or odd; and whether anything is configured at all."""
    config = case.facts["config"]
    for line in dict.fromkeys((*case.problems, *config["problems"])):
        if not (_lacks_yaml(case) and "yaml]" in line):
            yield found("configuration-wrong", line)
    for line in config["doubts"]:
        yield found("configuration-doubtful", line)
    if config["disabled"]:
        where = config["given"].get("disabled", "")
        yield found("disabled", f"every call is plain: {where or 'argument'} switches meshlib off")
    elif not config["configured"] and not case.problems:
        yield found("nothing-configured", "nothing is configured: every call goes as without meshlib")


def joining(case: Case) -> Iterator[Finding]:
    """Which services have not joined, and whether a kill switch keeps all of them out."""
    status, config = case.facts["status"], case.facts["config"]
    if status is None or config["disabled"]:
        return
    adoption = status["adoption"]
    if adoption["switched_off"]:
        yield found("disabled", f"every call is plain: the kill switch {config['kill_switch']} is there")
    modes = {name: service["mode"] for name, service in adoption["services"].items()}
    out = [f"{name}: {mode}" for name, mode in modes.items() if mode != "on"]
    if adoption["default"] != "on":
        out.append(f"every other: {adoption['default']}")
    if out:
        yield found(
            "not-joined", f"services that have not joined, or not all of their calls: {named(out)}", *out
        )


def variables(case: Case) -> Iterator[Finding]:
    """Variables that look like ours and are none."""
    for line in case.facts["process"]["strangers"]:
        yield found("variable-misspelt", line)


def extras(case: Case) -> Iterator[Finding]:
    """Packages that the configuration needs and that are not installed."""
    lacking = [name for name in case.facts["process"]["lacking"] if name in MODULES]
    if _lacks_yaml(case):
        file = next(path for path in _files(case) if _is_yaml(path))
        yield found("extra-missing", f"{file} is YAML, and PyYAML is not installed", install=install("yaml"))
    http2 = [name for name in lacking if MODULES[name] == "http2"]
    clusters = [cluster["name"] for cluster in case.facts["clusters"] if cluster["http2"]]
    if http2 and clusters:
        yield found(
            "extra-missing",
            f"HTTP/2 is ordered for {named(clusters)}, and {', '.join(http2)} is not installed: HTTP calls to it fail",
            "gRPC calls do without it",
            less=True,
            install=install("http2"),
        )
    exports = case.facts["process"]["exports"]
    if exports and "opentelemetry.sdk" in lacking:
        yield found(
            "extra-missing",
            f"{exports} is set, and OpenTelemetry's SDK is not installed: there are no spans and no metrics",
            less=True,
            install=install("otel"),
        )


def _lacks_yaml(case: Case) -> bool:
    return "yaml" in case.facts["process"]["lacking"] and any(map(_is_yaml, _files(case)))


def _files(case: Case) -> list[str]:
    return [path for path in (case.facts["config"]["file"], case.facts["config"]["services_file"]) if path]


def _is_yaml(path: str) -> bool:
    return PurePath(path).suffix.lower() in (".yaml", ".yml")


def ignored(case: Case) -> Iterator[Finding]:
    """One finding for all of a resource type of a source: a control plane may send the same to each of a thousand clusters."""
    for source in case.sources:
        by_type: dict[str, list[str]] = {}
        for item in source["ignored"]:
            name = f"{item['resource']}: " if item["resource"] else ""
            value = f" = {item['value']}" if item["value"] else ""
            by_type.setdefault(item["type"], []).append(f"{name}{item['field']}{value}")
        for kind, lines in by_type.items():
            many = "settings are" if len(lines) > 1 else "setting is"
            yield found(
                "setting-ignored", f"{source['name']}: {len(lines)} {many} not honoured ({kind})", *lines
            )
    skipped = case.facts["config"]["skipped"]
    if skipped and not any(item["type"] == "bootstrap" for each in case.sources for item in each["ignored"]):
        yield found("setting-ignored", f"the bootstrap: not honoured: {named(skipped)}", *skipped)


# --- files ---------------------------------------------------------------------------------------------------------------


def files(case: Case) -> Iterator[Finding]:
    """Files that cannot be read, or by too many."""
    for file in _once(case):
        seen = case.seen.files.get(file["path"])
        if seen is None:
            continue
        if seen.absent and file["use"] in ("state", "socket"):
            continue  # a mesh makes it
        if seen.problem and not seen.garbled:
            yield found("file-unreadable", f"{file['key']}: {file['path']}: {seen.problem}")
            continue
        rights = f"its mode is {seen.mode:04o}"
        if seen.mode & 0o004 and file["use"] in ("key", "token", "bootstrap"):
            yield found(
                "file-readable-by-others",
                f"{file['key']}: {file['path']} can be read by every user",
                rights,
                less=file["use"] == "bootstrap",
                path=file["path"],
            )
        if seen.mode & 0o002:
            summary = f"{file['key']}: {file['path']} can be changed by every user"
            yield found("file-writable-by-others", summary, rights, path=file["path"])
        if seen.loose:
            folder = str(PurePath(file["path"]).parent)
            summary = f"{file['key']}: {file['path']} can be replaced by every user"
            rights = f"everybody may write the directory {folder}, which has no sticky bit"
            yield found("file-writable-by-others", summary, rights, path=folder)


def certificates(case: Case) -> Iterator[Finding]:
    """Dates of certificates, and whether they are any."""
    for file in _once(case):
        seen = case.seen.files.get(file["path"])
        if seen is None:
            continue
        if seen.garbled:
            yield found("certificate-unusable", f"{file['key']}: {file['path']}: {seen.problem}")
        if file["use"] == "certificate":
            for number, one in enumerate(seen.certificates, 1):
                which = f", certificate {number}" if len(seen.certificates) > 1 else ""
                yield from _dates(f"{file['key']}: {file['path']}{which}", one, case.seen.now)
        elif file["use"] == "ca" and seen.certificates:
            # Of a bundle one root that is valid may be all that is needed.
            best = max(seen.certificates, key=lambda one: (one.begins <= case.seen.now, one.ends))
            yield from _dates(f"{file['key']}: {file['path']}", best, case.seen.now)
    for cert, key in sorted(pairs_of(case.facts["config"]["files"])):
        problem = case.seen.pairs.get((cert, key), "")
        if problem:
            yield found("certificate-unusable", f"{cert} and {key} are no pair: {problem}")


def _once(case: Case) -> Iterator[FileFacts]:
    """Each file once, by the first key that names it. The configuration itself is judged where it is read."""
    told: set[str] = set()
    for file in case.facts["config"]["files"]:
        if file["path"] not in told:
            told.add(file["path"])
            yield file


def _dates(what: str, one: Validity, now: float) -> Iterator[Finding]:
    left = one.ends - now
    if left < 0:
        yield found("certificate-expired", f"{what} expired {_long(-left)} ago")
    elif now < one.begins:
        yield found("certificate-not-yet-valid", f"{what} is valid in {_long(one.begins - now)} only")
    elif left < min(_WEEK, _SHARE * (one.ends - one.begins)):
        yield found("certificate-expires-soon", f"{what} expires in {_long(left)}")


def _long(seconds: float) -> str:
    from meshlib.cli.render import duration

    return f"{seconds / _DAY:.0f} days" if seconds >= 2 * _DAY else duration(seconds)
