#!/usr/bin/python3
"""A plugin without an SDK: it connects to the target itself, and hands the socket over.

docs/plugin-protocol.md is what it follows. The README beside this file says how to
generate the stubs, and how to run it.
"""

import array
import ctypes
import json
import os
import re
import resource
import signal
import socket
import struct
import sys
import threading
import time
from concurrent import futures

import grpc

from tunneld.plugin.v1 import plugin_pb2 as pb
from tunneld.plugin.v1 import plugin_pb2_grpc as rpc

NAME = "pydirect"

# A call occupies a thread from its beginning to its end. tunneld has at most 1000 dials of
# a plugin in progress; this one takes fewer, and refuses the others at once. OTHER_CALLS
# are beside them, see "Threads" in docs/plugin-protocol.md.
DIALS = 256
OTHER_CALLS = 16

DURATION = re.compile(r"[0-9]+(\.[0-9]{1,9})?s")


def log(level, msg, **attributes):
    line = json.dumps({"level": level, "msg": msg, **attributes})
    os.write(2, (line + "\n").encode())


class Channel:
    """The descriptor channel."""

    HANDOFF, DIRECT, SIZE = 1, 1, 256

    def __init__(self, fd):
        os.set_inheritable(fd, False)
        self.socket = socket.socket(fileno=fd)
        # It comes non-blocking: without this a read fails with EAGAIN. The mode is that of
        # this end alone.
        self.socket.setblocking(True)
        self.sending = threading.Lock()
        threading.Thread(target=self.receive, daemon=True).start()

    def receive(self):
        """Reads until tunneld is gone. The records to a plugin are about relays."""
        while self.socket.recv(self.SIZE):
            pass
        os._exit(0)

    def hand_over(self, token, conn):
        record = struct.pack(">BBBBQ244x", 1, self.HANDOFF, self.DIRECT, 0, token)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [conn.fileno()]))]
        with self.sending:
            self.socket.sendmsg([record], rights)


class Plugin(rpc.PluginServiceServicer):
    def __init__(self):
        self.changed = threading.Condition()
        self.version = 0
        self.generations = {}
        self.draining = False

    def GetInfo(self, request, context):
        return pb.GetInfoResponse(
            name=NAME,
            version="1.0.0",
            summary="connects to the target itself",
            data_paths=[pb.DATA_PATH_DIRECT],
            common_names=1,
        )

    def GetSchema(self, request, context):
        timeout = pb.Attribute(
            name="timeout",
            type=pb.Type(kind=pb.KIND_DURATION, minimum_json='"0.001s"', maximum_json='"300s"'),
            default_json='"10s"',
            doc="how long a connection may take",
        )
        return pb.GetSchemaResponse(upstream=pb.Block(
            attributes=[timeout], doc="A way that is no way at all.", targets=pb.TARGETS_PORT))

    def ValidateConfig(self, request, context):
        return pb.ValidateConfigResponse(diagnostics=check(request.upstream))

    def Configure(self, request, context):
        with self.changed:
            if request.generation in self.generations:
                context.abort(grpc.StatusCode.ALREADY_EXISTS, "the generation exists")
            wrong = [d for u in request.upstreams for d in check(u)]
            if not wrong:
                self.generations[request.generation] = {u.name: u for u in request.upstreams}
                self.change()
        return pb.ConfigureResponse(diagnostics=wrong)

    def Release(self, request, context):
        with self.changed:
            self.generations.pop(request.generation, None)
            self.change()
        return pb.ReleaseResponse()

    def WatchStatus(self, request, context):
        context.add_callback(self.wake)
        told = -1
        while context.is_active():
            with self.changed:
                self.changed.wait_for(lambda: self.version != told or not context.is_active())
                told = self.version
                upstreams = {(u.name, u.config_hash) for g in self.generations.values() for u in g.values()}
            yield pb.WatchStatusResponse(upstreams=[
                pb.UpstreamStatus(name=n, config_hash=h, health=pb.HEALTH_OK) for n, h in sorted(upstreams)])

    def Drain(self, request, context):
        with self.changed:
            self.draining = True
        return pb.DrainResponse()  # it has no relays

    def change(self):
        self.version += 1
        self.changed.notify_all()

    def wake(self):
        with self.changed:
            self.changed.notify_all()

    def upstream(self, request, context):
        with self.changed:
            if self.draining:
                context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
            u = self.generations.get(request.generation, {}).get(request.upstream)
            if u is None:
                context.abort(grpc.StatusCode.NOT_FOUND, "no such upstream in this generation")
            return u


def check(upstream):
    """Returns what is wrong with an upstream's values."""
    wrong = []
    for name, value in json.loads(upstream.config_json).items():
        if name != "timeout":
            why = "Unknown attribute"
        elif not isinstance(value, str) or not DURATION.fullmatch(value):
            why = "Wrong value: write a duration"
        elif not 0.001 <= seconds(value) <= 300:
            why = "Wrong value: it is between 0.001s and 300s"
        else:
            continue
        wrong.append(pb.Diagnostic(severity=pb.SEVERITY_ERROR, summary=why, path=[name], upstream=upstream.name))
    return wrong


def seconds(duration):
    return float(duration[:-1])


class Tunnels(rpc.TunnelServiceServicer):
    def __init__(self, plugin, channel):
        self.plugin, self.channel = plugin, channel
        self.free = threading.Semaphore(DIALS)

    def Dial(self, request, context):
        if not self.free.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{DIALS} dials are in progress")
        try:
            return self.dial(request, context)
        finally:
            self.free.release()

    def dial(self, request, context):
        upstream = self.plugin.upstream(request, context)
        patience = seconds(json.loads(upstream.config_json).get("timeout", "10s"))
        setting = "timeout"
        left = context.time_remaining()
        if left is not None and left - 0.1 < patience:
            patience, setting = left - 0.1, "timeouts.dial of the listener"  # answer before the deadline
        try:
            conn = connect(request.target.host, request.target.port, patience)
        except (OSError, UnicodeError) as e:
            return pb.DialResponse(error=failure(e, setting))
        with conn:  # closes this process's copy
            if request.socket_options.nodelay:
                conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected = pb.Connected(local_address=address(conn.getsockname()), remote_address=address(conn.getpeername()))
            if context.is_active():
                self.channel.hand_over(request.token, conn)
            return pb.DialResponse(handoff=pb.Handoff(token=request.token, path=pb.DATA_PATH_DIRECT, connected=connected))


def connect(host, port, patience):
    """Tries the addresses of a name in turn; all of them together have patience seconds."""
    end = time.monotonic() + patience
    for family, kind, protocol, _, name in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        conn = None
        try:
            conn = socket.socket(family, kind, protocol)
            conn.settimeout(max(end - time.monotonic(), 0.001))
            conn.connect(name)
            return conn
        except OSError as e:
            failed = e
            if conn:
                conn.close()
    raise failed


def failure(e, setting):
    """Returns what a failed connection means. setting is what bounds the time."""
    stage, reason, hint = pb.STAGE_CONNECT, pb.REASON_UNREACHABLE, "check host and port of the target"
    if isinstance(e, UnicodeError):  # Python encodes names before it looks them up
        stage, reason, hint = pb.STAGE_RESOLVE, pb.REASON_NOT_FOUND, "check the name: a label has 1 to 63 bytes"
    elif isinstance(e, socket.gaierror) and e.errno == socket.EAI_AGAIN:
        stage, reason, hint = pb.STAGE_RESOLVE, pb.REASON_UNAVAILABLE, "the name server failed: check this machine's DNS"
    elif isinstance(e, socket.gaierror):
        stage, reason, hint = pb.STAGE_RESOLVE, pb.REASON_NOT_FOUND, "check the name"
    elif isinstance(e, ConnectionRefusedError):
        reason = pb.REASON_REFUSED
    elif isinstance(e, TimeoutError):
        reason, hint = pb.REASON_TIMEOUT, f"check host and port of the target, or raise {setting}"
    return pb.DialError(stage=stage, reason=reason, retryable=True, message=str(e), hint=hint)


def address(name):
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def health(request, context):
    """grpc.health.v1.Health/Check for the service "plugin", by its bytes."""
    if request not in (b"", b"\x0a\x06plugin"):
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return b"\x08\x01"  # SERVING


def hide_memory():
    if os.environ.get("TUNNELD_DUMPABLE") != "1" and sys.platform == "linux":
        PR_SET_DUMPABLE = 4
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main():
    if "TUNNELD_PLUGIN" not in os.environ:
        sys.exit("this is a plugin, which tunneld starts")
    hide_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    channel = Channel(int(os.environ.pop("TUNNELD_PLUGIN_CHANNEL")))

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=DIALS + OTHER_CALLS))
    plugin = Plugin()
    rpc.add_PluginServiceServicer_to_server(plugin, server)
    rpc.add_TunnelServiceServicer_to_server(Tunnels(plugin, channel), server)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(health)})])
    path = os.environ["PLUGIN_UNIX_SOCKET_DIR"] + "/s"
    server.add_insecure_port("unix:" + path)
    server.start()
    print(f"1|1|unix|{path}|grpc|", flush=True)
    log("DEBUG", "serving", python=sys.version.split()[0])
    server.wait_for_termination()


if __name__ == "__main__":
    main()
