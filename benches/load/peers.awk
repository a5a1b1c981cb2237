# Makes the table of the peers from what `run` has measured.
#
#   awk -v hertz=… -v cores=… -f samples.awk -f peers.awk measurements

# The rate of a server is divided by that of HAProxy in the same round.
function line(name, label,   n, i, list) {
    n = count["peers", name]
    for (i = 1; i <= n; i++) list[i] = sample["rate", "peers", name, i] / sample["rate", "peers", "haproxy", i]
    sort(list, n)
    printf "| %s | %d | %.2f | %.2f to %.2f | %.2f | %.2f | %.1f | %.2f |\n", label, median("rate", "peers", name),
        middle(list, n), list[1], list[n], median("p50", "peers", name), median("p99", "peers", name),
        median("cpu", "peers", name), median("server", "peers", name)
}

END {
    print "| | requests/s | divided by HAProxy\x27s in the same round | min to max | p50, ms | p99, ms | server\x27s CPU, µs per request | cores busy |"
    print "|---|---:|---:|---:|---:|---:|---:|---:|"
    line("precomputed", "tower-dpop, `precomputed-keys`: token, proof, and each proof once")
    line("default", "tower-dpop: the same")
    line("haproxy", "HAProxy, `jwt_verify` of the proof alone")
    line("huskarl", "huskarl-axum: token and proof")
    line("oauth4webapi", "oauth4webapi: token and proof")
    printf "\n%s\n", disturbance("peers")
}
