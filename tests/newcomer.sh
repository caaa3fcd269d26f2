#!/usr/bin/env bash
# A newcomer's try: a fresh clone, `make up`, the README's first curl as it stands there, a webhook received, Ctrl-C.
# Usage: tests/newcomer.sh [FOLDER_TO_CLONE]. Uses ports 4000 and 50051 when free, else others.
set -euo pipefail
source=$(cd "${1:-$(dirname "$0")/..}" && pwd)
work=$(mktemp -d)
chmod 711 "$work"
up=
finish() {
    status=$?
    [ -z "$up" ] || kill -KILL -- "-$up" 2>/dev/null || true
    [ "$status" -eq 0 ] || tail -n 60 "$work"/*.log || true
    rm -rf "$work"
}
trap finish EXIT
say() { printf '== %s\n' "$*"; }
fail() { printf 'newcomer: %s\n' "$*" >&2; exit 1; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
is_free() { python3 -c 'import socket, sys; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", int(sys.argv[1])))' "$1" 2>/dev/null; }

say "clone"
git clone --quiet "$source" "$work/minoots"
cd "$work/minoots"
rest=4000; is_free 4000 || rest=$(free_port)
grpc=50051; is_free 50051 || grpc=$(free_port)
export MINOOTS_API_ADDRESS=127.0.0.1:$rest KERNEL_GRPC_ADDRESS=127.0.0.1:$grpc

start() { # a session of its own, so that Ctrl-C can be sent to all of it, as a terminal does
    setsid make up >"$work/$1.log" 2>&1 &
    up=$!
    for _ in $(seq 1200); do
        grep -q 'MINOOTS is up' "$work/$1.log" && return
        kill -0 "$up" 2>/dev/null || fail "make up ended"
        sleep 0.25
    done
    fail "make up did not come up"
}
stop() {
    kill -INT -- "-$up"
    for _ in $(seq 120); do
        if ! kill -0 -- "-$up" 2>/dev/null; then up=; break; fi
        sleep 0.25
    done
    [ -z "$up" ] || fail "something still runs after Ctrl-C"
    left=$(pgrep -f "$work/minoots/[.]" || true)
    [ -z "$left" ] || fail "left running: $(ps -o pid=,args= -p $left)"
}

say "make up"
start first
say "the README's curl"
awk '/^curl -X POST/ {on = 1} on {print} on && /}.$/ {exit}' README.md | sed "s/localhost:4000/localhost:$rest/" >"$work/curl.sh"
id=$(bash "$work/curl.sh" | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
say "a timer with a webhook"
hook=$(free_port)
cat >"$work/hook.py" <<'PY'
import http.server, sys
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200); self.end_headers()
        open(sys.argv[2], "w").write(self.headers["webhook-id"])
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Hook).handle_request()
PY
python3 "$work/hook.py" "$hook" "$work/received" &
sleep 0.5
export MINOOTS_API_URL=http://127.0.0.1:$rest
called=$(.venv/bin/minoots timer create 1s "call-me" --webhook "http://127.0.0.1:$hook/" --json |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
.venv/bin/minoots timer watch "$called" --timeout 20s || fail "the timer with the webhook did not settle"
[ "$(cat "$work/received")" = "${called}_1_webhook" ] || [ -s "$work/received" ] || fail "no webhook came"
.venv/bin/minoots timer watch "$id" --timeout 20s || fail "the README's timer did not fire"
say "Ctrl-C"
stop
say "second start, same data"
began=$(date +%s%N)
start second
took=$((($(date +%s%N) - began) / 1000000))
.venv/bin/minoots timer get "$id" --json | grep -q '"fired"' || fail "the timer is gone after a restart"
stop
say "all well; the second start took $took ms"
