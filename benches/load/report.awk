# Makes the tables of RESULTS.md from what `run` has measured: medians over the rounds.
#
#   awk -v hertz=… -v cores=… -v proofs=… -v titles='A=title;B=title' -f report.awk memory measurements

BEGIN {
    split("protected health hyper", rows, " ")
    label["protected"] = "`/protected`: every request with a proof of its own"
    label["health"] = "`/health`, the same server, a route without the layer"
    label["hyper"] = "plain hyper"
}

# A line is words and `name=value`s: the values of this line by name.
function read_values(   i, parts) {
    delete value
    for (i = 1; i <= NF; i++)
        if (split($i, parts, "=") == 2) value[parts[1]] = parts[2]
}

FILENAME ~ /memory$/ {
    read_values()
    before[$1] = value["before"]; after[$1] = value["after"]; peak[$1] = value["peak"]
    next
}

$1 != "warm-up" {
    read_values()
    split(value["time"], time, ",")
    table = $1; row = $2
    if (!(table in seen)) { seen[table] = 1; tables[++table_count] = table }
    n = ++count[table, row]
    server = value["server"] / hertz
    wrk = time[2] + time[3]
    sample["rate", table, row, n] = value["rate"]
    sample["p50", table, row, n] = value["p50"] / 1000
    sample["p99", table, row, n] = value["p99"] / 1000
    sample["p999", table, row, n] = value["p999"] / 1000
    sample["cpu", table, row, n] = server / value["requests"] * 1e6
    sample["server", table, row, n] = server / time[1]
    sample["wrk", table, row, n] = wrk / time[1]
    others[table] += value["busy"] / hertz - server - wrk
    elapsed[table] += time[1]
}

function median(name, table, row,   n, i, j, sorted, held) {
    n = count[table, row]
    for (i = 1; i <= n; i++) {
        held = sample[name, table, row, i] + 0
        for (j = i - 1; j >= 1 && sorted[j] > held; j--) sorted[j + 1] = sorted[j]
        sorted[j + 1] = held
    }
    return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
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
        share = 100 * others[table] / (elapsed[table] * cores)
        printf "Everything else that ran meanwhile, the hypervisor's share included: %.1f %% of the machine%s.\n\n", share,
            (share > 5 ? ", which is too much to trust these figures" : "")
        print "| resident memory of the server, MB: before | after all proofs | at its peak | bytes per proof |"
        print "|---:|---:|---:|---:|"
        printf "| %d | %d | %d | %d |\n\n", before[table], after[table], peak[table],
            (after[table] - before[table]) * 1e6 / proofs
    }
}
