# Latency of good requests among bad ones. A part of `run`, which has the helpers.

# For each kind in each round.
attack_seconds=6

measure_attack() {
    [ "$mode" != quick ] || attack_seconds=1
    openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:4096 -out "$work/rsa.pem"
    echo "measuring: the server on ${cores[0]}, all clients on ${cores[1]}" >&2
    taskset -c "${cores[1]}" "$tools/attack" "$server" "${cores[0]}" "$work/rsa.pem" "$rounds" "$attack_seconds" > "$work/attack"
}

attack_results() {
    cat << END
# Under attack

Written by \`$command\`. The example \`resource_server\` alone on a core, with its default features. 400 good requests per
second, ES256, of one client, and ten times as many bad ones of one kind on other connections, all from another core.

- $(date -u +%F); $(model), $(nproc --all) cores; Linux $(uname -r)
- $(rustc --version | cut -d' ' -f1,2), tower-dpop $(version_of tower-dpop), axum $(version_of axum), hyper $(version_of hyper), aws-lc-rs $(version_of aws-lc-rs)
- release build, fat LTO, one codegen unit; the allocator of the system

$(cat "$work/attack")

## How the attacks were measured

- Requests are made beforehand. Each is due at a moment, at equal intervals; its latency is the time from then to the end of its
  response. Figures are medians over $rounds rounds of $attack_seconds s per kind.
- Every good request must get 200, and every bad one 401.
- 200 bad requests of a kind are sent again and again. Those with a wrong signature have a stolen token, which is valid, and a proof
  that names the right key: any other bad request is rejected before a signature is verified, except one with a token that a
  known key should have signed.
END
}
