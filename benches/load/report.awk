# Makes the tables of RESULTS.md from what `run` has measured: medians over the rounds.
#
#   awk -v hertz=… -v cores=… -v proofs=… -v titles='A=title;B=title' -f samples.awk -f report.awk memory measurements

BEGIN {
    split("protected health hyper", rows, " ")
    label["protected"] = "`/protected`: every request with a proof of its own"
    label["health"] = "`/health`, the same server, a route without the layer"
    label["hyper"] = "plain hyper"
}

FILENAME ~ /memory$/ {
    read_values()
    before[$1] = value["before"]; after[$1] = value["after"]; peak[$1] = value["peak"]
    next
}

END {
    split(titles, pairs, ";")
    for (i in pairs) { split(pairs[i], pair, "="); title[pair[1]] = pair[2] }
    for (t = 1; t <= table_count; t++) {
        table = tables[t]
        printf "## %s\n\n", title[table]
        print "| | requests/s | p50, ms | p99, ms | p99.9, ms | server's CPU, µs per request | cores busy: server | wrk |"
        print "|---|---:|---:|---:|---:|---:|---:|---:|"
        for (r = 1; r in rows; r++) {
            row = rows[r]
            printf "| %s | %d | %.2f | %.2f | %.2f | %.1f | %.2f | %.2f |\n", label[row],
                median("rate", table, row), median("p50", table, row), median("p99", table, row),
                median("p999", table, row), median("cpu", table, row), median("server", table, row),
                median("wrk", table, row)
        }
        with = median("cpu", table, "protected"); without = median("cpu", table, "health")
        printf "\nThe layer and the handler behind it: %.1f µs of CPU a request. ", with - without
        printf "%s\n\n", disturbance(table)
        print "| resident memory of the server, MB: before | after all proofs | at its peak | bytes per proof |"
        print "|---:|---:|---:|---:|"
        printf "| %d | %d | %d | %d |\n\n", before[table], after[table], peak[table],
            (after[table] - before[table]) * 1e6 / proofs
    }
}
