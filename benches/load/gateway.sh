# The gateway beside HAProxy, each with the check and without it. A part of `run`, which has the helpers.

# Below the range from which the system gives out ports.
haproxy_at=127.0.0.1:27501

# cores
start_upstream() {
    start upstream "$1" "$tools/plain_hyper"
    upstream=$pid upstream_at=$address
}

# cores: the program in front of the upstream, which it starts on the other core if it does not run
start_gateway() {
    [ -n "${upstream:-}" ] || start_upstream "${cores[1]}"
    # An hour is time enough for a million proofs that were all signed before the first was sent.
    cat > "$work/gateway.toml" << END
[dpop]
public_url = "$url"
freshness = { max_age_seconds = 3600 }
[dpop.issuer]
url = "https://as.example.com"
jwks_file = "$work/jwks.json"
[[listener]]
address = "127.0.0.1:0"
[upstream.service]
servers = ["$upstream_at"]
[[route]]
path = "/protected"
upstream = "service"
[[route]]
path = "/health"
upstream = "service"
access = "public"
[[identity]]
claim = "sub"
field = "X-Auth-Subject"
[process]
threads = 1
END
    # Without a line per decision: HAProxy writes none either.
    RUST_LOG=warn start gateway "$1" "$server" --config "$work/gateway.toml"
}

# cores. `jwt_verify` finds the key of a signature by the name of a file, so all proofs that it gets are of one client.
start_haproxy() {
    cat > "$work/haproxy.cfg" << END
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend proxy
    bind $haproxy_at
    http-request set-var(txn.proof) req.hdr(DPoP)
    http-request deny unless { path /health } or { var(txn.proof),jwt_verify(ES256,"$work/one/client.pem") -m int 1 }
    http-request del-header DPoP
    http-request del-header Authorization
    default_backend service
backend service
    server one ${upstream_at#http://}
END
    start haproxy "$1" sh -c "echo listening on http://$haproxy_at; exec haproxy -db -f '$work/haproxy.cfg'"
}

measure_gateway() {
    local on=${cores[0]} from=${cores[1]} gateway gateway_at haproxy round into sent
    "$tools/proofs" "$work/one" "$url/protected" 1 1 "$share"
    start_gateway "$on"
    gateway=$pid gateway_at=$address
    start_haproxy "$on"
    haproxy=$pid
    echo "measuring: the proxies on $on, wrk and the service on $from" >&2
    printf 'before=%s ' "$(memory "$gateway" VmRSS)" >> "$work/memory"
    for ((round = 1; round <= rounds + 1; round++)); do
        [ "$round" = 1 ] && into=warm-up || into=gateway
        measure "$into" checked "$gateway" "$from" "$gateway_at/protected" "$work/$round" "$upstream"
        [ "$round" != 1 ] || printf 'first=%s ' "$(memory "$gateway" VmRSS)" >> "$work/memory"
        # HAProxy forgets what it has verified, and a route without a check does not care: they can get the same proofs again.
        measure "$into" public "$gateway" "$from" "$gateway_at/health" "$work/one/1" "$upstream"
        measure "$into" jwt_verify "$haproxy" "$from" "http://$haproxy_at/protected" "$work/one/1" "$upstream"
        measure "$into" haproxy "$haproxy" "$from" "http://$haproxy_at/health" "$work/one/1" "$upstream"
    done
    printf 'all=%s peak=%s haproxy=%s\n' "$(memory "$gateway" VmRSS)" "$(memory "$gateway" VmHWM)" \
        "$(memory "$haproxy" VmRSS)" >> "$work/memory"
    assert_replay_is_rejected "$gateway_at"
    # HAProxy has checked, too: it rejects the proof of another client.
    sent=$(curl -s -o "$work/answer" -w '%{http_code}' --max-time 5 -H "DPoP: $(cut -d' ' -f2 "$work/2-1.txt" | head -n 1)" \
        "http://$haproxy_at/protected")
    [ "$sent" = 403 ] || { echo "$0: HAProxy responds to the proof of another key with $sent" >&2; exit 1; }
    for pid in "$gateway" "$haproxy" "$upstream"; do stop TERM "$pid"; done
}

gateway_results() {
    cat << END
# The gateway

Written by \`$command\`. \`dpop-gateway\` and HAProxy in turn, with one thread, alone on a core, in front of the plain hyper
server (the service). The service and wrk share another core.

- $(date -u +%F); $(model), $(nproc --all) cores; Linux $(uname -r)
- $(rustc --version | cut -d' ' -f1,2), dpop-gateway $(version_of dpop-gateway gateway), pingora $(version_of pingora gateway), aws-lc-rs $(version_of aws-lc-rs gateway)
- HAProxy $(haproxy -v | sed -n '1s/HAProxy version \(\S*\).*/\1/p') with $(haproxy -vv | sed -n 's/^Running on \(OpenSSL version : \)\?//p' | grep -i ssl | cut -d' ' -f1,2), wrk $(wrk_version)
- release build of the gateway by its own profile; the allocator of the system; no log of requests

END
    awk -v hertz="$(getconf CLK_TCK)" -v cores="$(nproc --all)" -v first="$warm_up" -v all=$((warm_up + rounds * share)) \
        -f samples.awk -f gateway.awk "$work/memory" "$work/measurements"
    cat << END

## How the gateway was measured

- The proofs are those of the other measurement: $warm_up as a warm-up, then $rounds rounds of $share, in which the four rows
  take turns on $connections connections of wrk, which stay open. The proxies keep theirs to the service open, too.
- All rows get the same header fields. Both proxies remove \`Authorization\` and \`DPoP\`; the gateway with its check also adds
  the subject.
- HAProxy's \`jwt_verify(ES256, …)\` checks the signature of the proof by one configured key, and nothing else: no claims, no
  access token, no replay. It is what one signature costs there.
- A rate is that of the proxy only if its core is busy (0.9 and more). If the service and wrk fill theirs before, the rate is
  theirs: compare the CPU per request. Between two runs, neighbours of a virtual machine change all rates by 10 % and more:
  trust the ratios, and only where min and max are close.
- A measurement counts only if every response was a success. At the end, the gateway must reject a proof that was used, and
  HAProxy the proof of another key.
END
}
