# Makes the tables of the gateway from what `run` has measured.
#
#   awk -v hertz=… -v cores=… -v first=… -v all=… -f samples.awk -f gateway.awk memory measurements

FILENAME ~ /memory$/ { read_values(); for (name in value) memory[name] = value[name] }

function line(name, label) {
    printf "| %s | %d | %.2f | %.2f | %.1f | %.2f | %.2f | %.2f |\n", label, median("rate", "gateway", name),
        median("p50", "gateway", name), median("p99", "gateway", name), median("cpu", "gateway", name),
        median("server", "gateway", name), median("upstream", "gateway", name), median("wrk", "gateway", name)
}

# Of the rates in one round, and of the medians of the CPU.
function ratio(one, other, label,   n, i, list) {
    n = count["gateway", one]
    for (i = 1; i <= n; i++) list[i] = sample["rate", "gateway", one, i] / sample["rate", "gateway", other, i]
    sort(list, n)
    printf "| %s | %.2f | %.2f | %.2f | %.2f |\n", label, list[1], middle(list, n), list[n],
        median("cpu", "gateway", one) / median("cpu", "gateway", other)
}

END {
    print "| | requests/s | p50, ms | p99, ms | CPU of the proxy, µs per request | cores busy: proxy | service | wrk |"
    print "|---|---:|---:|---:|---:|---:|---:|---:|"
    line("checked", "gateway: token, proof, and each proof once")
    line("public", "gateway, a route with `access = \"public\"`")
    line("jwt_verify", "HAProxy, `jwt_verify` of the proof alone")
    line("haproxy", "HAProxy without a check")
    printf "\n%s\n\n", disturbance("gateway")
    print "| requests/s of one row, divided by those of another in the same round | min | median | max | the same of the CPU per request |"
    print "|---|---:|---:|---:|---:|"
    ratio("checked", "public", "gateway: with the check / without it")
    ratio("jwt_verify", "haproxy", "HAProxy: with `jwt_verify` / without it")
    ratio("checked", "jwt_verify", "gateway with the check / HAProxy with `jwt_verify`")
    ratio("public", "haproxy", "gateway without the check / HAProxy without a check")
    printf "\n| resident memory of the gateway, MB: at the start | after %d proofs | after %d | at its peak | bytes per proof between | HAProxy |\n",
        first, all
    print "|---:|---:|---:|---:|---:|---:|"
    printf "| %d | %d | %d | %d | %d | %d |\n\n", memory["before"], memory["first"], memory["all"], memory["peak"],
        (memory["all"] - memory["first"]) * 1e6 / (all - first), memory["haproxy"]
    print "What grows is the replay store: 45 bytes per record if it holds a million, and more if it holds fewer, because its lists grow"
    print "by eight records (`docs/guide/performance.md`). A record is kept while its proof would be accepted: an hour here, 91 s by default."
}
