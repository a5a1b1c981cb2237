# The resource server beside other implementations, all on one core. A part of `run`, which has the helpers.

# cores. As in gateway.sh, but HAProxy responds itself.
start_haproxy_alone() {
    cat > "$work/haproxy.cfg" << END
global
    nbthread 1
defaults
    mode http
    timeout client 60s
frontend service
    bind $haproxy_at
    http-request return status 200 if { path /health }
    http-request set-var(txn.proof) req.hdr(DPoP)
    http-request return status 200 content-type application/json string '{"method":"GET","path":"/protected"}' if { var(txn.proof),jwt_verify(ES256,"$work/one/client.pem") -m int 1 }
    http-request deny
END
    start haproxy "$1" sh -c "echo listening on http://$haproxy_at; exec haproxy -db -f '$work/haproxy.cfg'"
}

measure_peers() {
    local on=${cores[0]} from=${cores[1]} name round into status
    local -A pids addresses
    "$tools/proofs" "$work/one" "$url/protected" 1 1 "$share"
    cp -r peers "$work/peers"
    npm ci --prefix "$work/peers" --silent --no-audit --no-fund >&2
    local arguments=("$url" https://as.example.com "$work/jwks.json")
    start_resource_server "$on"
    pids[default]=$pid addresses[default]=$address
    server=$work/precomputing start_resource_server "$on"
    pids[precomputed]=$pid addresses[precomputed]=$address
    start_haproxy_alone "$on"
    pids[haproxy]=$pid addresses[haproxy]=$address
    start huskarl "$on" "$tools/huskarl" "${arguments[@]}"
    pids[huskarl]=$pid addresses[huskarl]=$address
    start oauth4webapi "$on" node "$work/peers/oauth4webapi.mjs" "${arguments[@]}"
    pids[oauth4webapi]=$pid addresses[oauth4webapi]=$address
    echo "measuring: servers on $on, wrk on $from" >&2
    for ((round = 1; round <= rounds + 1; round++)); do
        [ "$round" = 1 ] && into=warm-up || into=peers
        for name in default precomputed haproxy huskarl oauth4webapi; do
            case $name in
                haproxy) set=one/1 ;;
                huskarl | oauth4webapi) set=$((rounds + 1 + round)) ;;
                *) set=$round ;;
            esac
            measure "$into" "$name" "${pids[$name]}" "$from" "${addresses[$name]}/protected" "$work/$set"
        done
    done
    assert_replay_is_rejected "${addresses[default]}"
    assert_replay_is_rejected "${addresses[precomputed]}"
    # The others have checked, too.
    for name in haproxy huskarl oauth4webapi; do
        status=$(with_the_token_of_another_client "${addresses[$name]}")
        [[ "$status" = 40[13] ]] || { echo "$0: $name responds to a stolen token with $status" >&2; exit 1; }
    done
    for pid in "${pids[@]}"; do stop TERM "$pid"; done
}

# The key of this client is none that HAProxy knows, either.
with_the_token_of_another_client() {
    local client proof
    read -r client proof < "$work/2-1.txt"
    curl -s -o "$work/answer" -w '%{http_code}' --max-time 5 \
        -H "Authorization: DPoP $(sed -n "$((client % clients + 1))p" "$work/tokens.txt")" -H "DPoP: $proof" "$1/protected"
}

peers_results() {
    cat << END
# Beside others

Written by \`$command\`. Servers in turn on one core, wrk on another.

- $(date -u +%F); $(model), $(nproc --all) cores; Linux $(uname -r)
- $(rustc --version | cut -d' ' -f1,2), tower-dpop $(version_of tower-dpop), axum $(version_of axum), aws-lc-rs $(version_of aws-lc-rs), huskarl-axum $(version_of huskarl-axum benches/load)
- HAProxy $(haproxy -v | sed -n '1s/HAProxy version \(\S*\).*/\1/p') with $(haproxy -vv | sed -n 's/^Running on \(OpenSSL version : \)\?//p' | grep -i ssl | cut -d' ' -f1,2), Node.js $(node --version), oauth4webapi $(sed -n 's/.*"oauth4webapi": "\(.*\)".*/\1/p' peers/package.json), wrk $(wrk_version)
- release builds, fat LTO, one codegen unit; the allocator of the system

END
    awk -v hertz="$(getconf CLK_TCK)" -v cores="$(nproc --all)" -f samples.awk -f peers.awk "$work/measurements"
    cat << END

## How the others were measured

- ES256 proofs of $clients clients, each with one access token. In each of $rounds rounds, the servers take turns on $connections
  connections. Every server gets $share proofs a round, huskarl-axum and oauth4webapi $slow_share.
- tower-dpop is the example \`resource_server\`, once with its default features and once with \`precomputed-keys\`.
- HAProxy's \`jwt_verify(ES256, …)\` checks the signature of the proof by one configured key, and nothing else: no claims, no
  access token, no replay. So all of its proofs are of one client.
- huskarl-axum and oauth4webapi check token and proof. Neither checks for replays here: huskarl's check is off by default, and
  oauth4webapi has none. huskarl verifies with its crate huskarl-crypto-native, oauth4webapi with Node's WebCrypto.
- A measurement counts only if every response was a success. At the end, tower-dpop must reject a proof that was used, and the
  others a proof with the token of another client.
END
}
