"""Every finding that there is: its id, how bad it is, what it means and what to do. ``docs/tasks/doctor.md`` has the same table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshlib.cli.findings import Finding
from meshlib.extras import INSTALL

__all__ = ["CATALOGUE", "ERROR", "INFO", "WARNING", "Sort", "found", "install"]

ERROR, WARNING, INFO = "error", "warning", "info"


@dataclass(frozen=True, slots=True)
class Sort:
    """``severity``: as a rule; ``or_else``: where it is less bad. ``remedy`` may have ``{names}`` that a check fills in."""

    severity: str
    means: str
    remedy: str
    or_else: str = ""


CATALOGUE: Mapping[str, Sort] = {
    # --- settings
    "configuration-wrong": Sort(
        ERROR,
        "The configuration, or the bootstrap that it names, cannot be used: a mesh of it raises `ConfigError`.",
        "correct what the line names; `meshlib check` says every problem with its line",
    ),
    "configuration-doubtful": Sort(
        WARNING, "A setting is allowed and can hardly be meant.", "correct it, or leave it out"
    ),
    "nothing-configured": Sort(
        INFO,
        "Nothing is configured: every call goes as without meshlib.",
        "set MESHLIB_CONFIG, MESHLIB_XDS_SERVER or GRPC_XDS_BOOTSTRAP; `meshlib init` writes a file to begin with",
    ),
    "disabled": Sort(
        INFO,
        "meshlib is switched off, by its configuration or by the file of the kill switch: every call is plain.",
        "nothing, if it is meant; otherwise unset MESHLIB_DISABLED, `disabled`, or remove the file of adoption.kill_switch",
    ),
    "not-joined": Sort(
        INFO,
        "Services that have not joined the mesh, or not with all of their calls.",
        "`meshlib adoption` says whether it is safe to go on",
    ),
    "variable-misspelt": Sort(
        WARNING,
        "A variable looks like one of meshlib's and is none: nobody reads it.",
        "correct its name, or unset it",
    ),
    "extra-missing": Sort(
        ERROR,
        "Something is configured that needs a package which is not installed.",
        "{install}",
        or_else=WARNING,
    ),
    "setting-ignored": Sort(
        INFO,
        "A setting arrived (from the control plane, a file, the bootstrap) that meshlib does not honour.",
        "do not rely on it for this process; docs/reference/xds-fields.md lists what is honoured",
    ),
    # --- the control plane
    "control-plane": Sort(
        INFO,
        "The control plane: who it is, whether it answers, who we are to it, what it has told.",
        "nothing to do",
    ),
    "control-plane-unreachable": Sort(
        ERROR,
        "Nobody listens where the control plane is said to be, or its name does not resolve. A warning where the last good "
        "state serves, or another server answers.",
        "start it, or correct {key}; is there a firewall or a network policy between?",
        or_else=WARNING,
    ),
    "control-plane-silent": Sort(
        ERROR,
        "Somebody listens there, and does not answer as a control plane does. A warning where the last good state serves.",
        "is it the port of its gRPC (ADS, v3), and is TLS on or off on both sides?",
        or_else=WARNING,
    ),
    "control-plane-tls": Sort(
        ERROR,
        "The TLS handshake with the control plane fails.",
        "is the CA that of the control plane, does its certificate name this host, and does it speak TLS at this port?",
    ),
    "resource-rejected": Sort(
        ERROR,
        "A resource of the control plane, or an edit of a file, was refused; the last good one stays in force.",
        "correct it where it is made",
    ),
    "resource-missing": Sort(
        ERROR,
        "A route names what the control plane does not have: calls to it fail.",
        "add it to the control plane, or correct the name",
    ),
    "resource-waiting": Sort(
        WARNING,
        "Something was asked of the control plane and did not come yet.",
        "does the control plane know this name, and may this node ask for it?",
    ),
    "source-failed": Sort(
        ERROR,
        "A source of configuration other than the control plane cannot be read. A warning where its last good state serves, and where it is only the file of `xds.last_good`.",
        "what the evidence says",
        or_else=WARNING,
    ),
    # --- names, ports, listeners
    "name-does-not-resolve": Sort(
        ERROR,
        "A host name of a service, an endpoint or the control plane has no address, or nobody answers for it.",
        "correct the name, or the name servers ([dns] nameservers, /etc/resolv.conf)",
    ),
    "endpoint-not-listening": Sort(
        ERROR,
        "Nobody accepts connections at an endpoint. A warning where others of its cluster do.",
        "start the service there, or take the endpoint out of {where}",
        or_else=WARNING,
    ),
    "endpoints-missing": Sort(
        WARNING,
        "A service of the configuration file has no endpoint: calls to it fail. A note for a cluster of a control plane.",
        "is a backend registered for it?",
        or_else=INFO,
    ),
    "endpoint-shared": Sort(
        INFO,
        "Two services of the configuration have one endpoint: their breakers, limits and counts do not know of each other.",
        "one service with routes, if they are meant to be one",
    ),
    "endpoints-not-tried": Sort(
        INFO,
        "More endpoints than can be tried in the time: the rest is not known.",
        "nothing to do; `meshlib dump PID` shows how calls to them go",
    ),
    "listener-collision": Sort(
        WARNING,
        "Two listeners have one address: the first carries the calls.",
        "give one of them another address",
    ),
    "virtual-host-overlap": Sort(
        WARNING,
        "Two listeners of one port have a virtual host for the same name: the first carries its calls.",
        "leave the name to one of them",
    ),
    "service-collision": Sort(
        WARNING,
        "Two sources have a service of one name: the first one's carries the calls.",
        "leave the service to one of them",
    ),
    "service-overlap": Sort(
        INFO,
        "A service stands in front of another of the same host: with and without a port, or of the file and of the control plane.",
        "nothing, if it is meant; otherwise rename one",
    ),
    "listener-address-taken": Sort(
        INFO,
        "Something listens on this machine at the address of a listener that meshlib stands for: what it serves gets no calls "
        "of this process.",
        "nothing, if it is a sidecar that meshlib replaces; otherwise another address for one of them",
    ),
    "proxy-wins": Sort(
        WARNING,
        "A proxy in the environment wins over the mesh, for hosts that the mesh knows.",
        "add {hosts} to NO_PROXY, or unset the proxy",
    ),
    "clock-skew": Sort(
        WARNING,
        "The clock of this machine and that of a service that was asked (its `Date`) differ by more than 10 s: certificates and "
        "tokens are judged wrongly by one of them.",
        "set the clock by NTP, on whichever is wrong",
    ),
    # --- files
    "certificate-expired": Sort(
        ERROR, "A certificate that the configuration names is not valid any more.", "renew it"
    ),
    "certificate-not-yet-valid": Sort(
        ERROR,
        "A certificate that the configuration names is not valid yet.",
        "is the clock of this machine, or of who issued it, wrong?",
    ),
    "certificate-expires-soon": Sort(
        WARNING,
        "A certificate has less than a tenth of its time left, and less than a week.",
        "renew it; files are read again, no restart is needed",
    ),
    "certificate-unusable": Sort(
        ERROR,
        "A file that the configuration names holds no certificate, or a certificate and a key do not belong together.",
        "is it PEM, and are the two of one pair?",
    ),
    "file-unreadable": Sort(
        ERROR, "A file that the configuration names cannot be read.", "correct the path, or its permissions"
    ),
    "file-readable-by-others": Sort(
        WARNING,
        "A private key or a token can be read by every user of the machine. A bootstrap that can is a note.",
        "chmod o-r {path} (in Kubernetes: defaultMode of the volume)",
        or_else=INFO,
    ),
    "file-writable-by-others": Sort(
        WARNING,
        "A file that the configuration names, or a socket that is served, can be changed, or replaced, by every user of the machine.",
        "chmod o-w {path}",
    ),
    # --- identity
    "identity": Sort(
        INFO,
        "Who the process is to other workloads, where TLS is demanded: by whom, for how long, and how many roots others are trusted by.",
        "nothing to do",
    ),
    "identity-missing": Sort(
        ERROR,
        "A cluster demands the process's identity, and it cannot be had: calls to it fail.",
        "what the evidence says; [identity] says who gives it",
    ),
    "identity-expired": Sort(
        ERROR,
        "The certificate of the process's identity has expired, and no new one can be had: calls that need it fail.",
        "what the evidence says; is the clock of this machine right?",
    ),
    "identity-expires-soon": Sort(
        WARNING,
        "The certificate of the process's identity serves, and cannot be renewed.",
        "what the evidence says, before it expires",
    ),
    "tls-verifies-nobody": Sort(
        WARNING,
        "TLS to some clusters is encrypted, and whoever answers is accepted: the control plane sends no roots (Envoy does the same).",
        'have it send a validation context with roots; [identity] verify = "always" has the system\'s roots and the name decide until then',
    ),
    "tls-unusable": Sort(
        ERROR,
        "The TLS that a cluster demands cannot be had: calls to it fail, and none goes in plain text.",
        "what the evidence says",
    ),
    # --- the process
    "admin-off": Sort(
        INFO,
        "Programs with this configuration cannot be looked into: `meshlib ps`, `dump PID`, `doctor PID`.",
        "[admin] enabled = true",
    ),
    "admin-directory": Sort(
        WARNING,
        "No admin socket can be made in its directory.",
        "correct the directory's owner and rights, or name another: [admin] runtime_dir",
    ),
    "process-cannot-be-asked": Sort(
        ERROR,
        "There is no such process, or it has no admin socket, or does not answer.",
        "[admin] enabled = true in its configuration; `meshlib ps` lists the processes that can be asked",
    ),
    "another-version": Sort(
        ERROR,
        "The process runs another version of meshlib, whose facts this one does not know.",
        "run `meshlib doctor` of the environment that the process runs in",
    ),
    "used-before-fork": Sort(
        INFO,
        "The process is the fork of one that had used its mesh; it has streams and connections of its own.",
        "nothing has to be done; to make the first use after the fork saves the parent a stream",
    ),
    "grpc-fork-support-off": Sort(
        INFO,
        "GRPC_ENABLE_FORK_SUPPORT is off: a child that is forked while grpc is in use has no control plane.",
        "unset it, or use grpc after the fork only",
    ),
    "gevent-late": Sort(
        ERROR,
        "gevent patched the process after the mesh was in use: locks of before block every greenlet.",
        "call gevent.monkey.patch_all() before anything else is imported",
    ),
    "gevent-without-grpc": Sort(
        ERROR,
        "gevent has patched threads, and grpc was not told: there is no control plane and no gRPC in this process.",
        "call grpc.experimental.gevent.init_gevent() right after gevent.monkey.patch_all()",
    ),
    "uwsgi-without-threads": Sort(
        WARNING,
        "uWSGI runs without threads: what a control plane, DNS or a file says is read only while a request is served.",
        "enable-threads = true",
    ),
    "double-instrumentation": Sort(
        WARNING,
        "More than one tracer makes spans of the same calls, and writes headers of its own. A note where OpenTelemetry's "
        "packages and meshlib share one span, and where packages are installed and may be at work.",
        "leave the calls of {libraries} to one tracer",
        or_else=INFO,
    ),
    "retries-owned-twice": Sort(
        WARNING,
        "A client tries again by itself, and the mesh below it does: attempts multiply. A note where one yields to the other, "
        "and where it cannot be told.",
        "{instead}",
        or_else=INFO,
    ),
    # --- sidecar
    "sidecar": Sort(
        INFO,
        "Signs of a sidecar: which, how sure, by what, and whether it carries the calls.",
        "nothing, if it is meant; [sidecar] mode says it otherwise",
    ),
    "sidecar-absent": Sort(
        ERROR,
        "The configuration demands a sidecar, or names one, and there is none that is ready.",
        'inject the sidecar, or set [sidecar] mode to "auto" or "off"',
    ),
    "sidecar-other": Sort(
        WARNING,
        "The configuration demands a sidecar, or names one, and another user's program listens in its place.",
        "find out whose it is (the evidence has the port and the user); correct [sidecar] mode",
    ),
}


def found(name: str, summary: str, *evidence: str, less: bool = False, **words: str) -> Finding:
    """A finding of the catalogue. ``less``: it is the less bad case; ``words``: for its remedy."""
    sort = CATALOGUE[name]
    severity = sort.or_else if less else sort.severity
    return Finding(name, severity, summary, sort.remedy.format(**words), evidence)


def install(extra: str) -> str:
    """The remedy that installs an extra."""
    return INSTALL.format(extra)
