# What report.awk and gateway.awk share: reads the measurements of `run`, a line per row and round, and says what lies in the
# middle. `hertz` is the number of clock ticks per second.

# A line is words and `name=value`s: the values of this line by name.
function read_values(   i, parts) {
    delete value
    for (i = 1; i <= NF; i++)
        if (split($i, parts, "=") == 2) value[parts[1]] = parts[2]
}

FILENAME ~ /measurements$/ && $1 != "warm-up" {
    read_values()
    split(value["time"], time, ",")
    table = $1; row = $2
    if (!(table in seen)) { seen[table] = 1; tables[++table_count] = table }
    n = ++count[table, row]
    server = value["server"] / hertz
    upstream = value["upstream"] / hertz
    wrk = time[2] + time[3]
    sample["rate", table, row, n] = value["rate"]
    sample["p50", table, row, n] = value["p50"] / 1000
    sample["p99", table, row, n] = value["p99"] / 1000
    sample["p999", table, row, n] = value["p999"] / 1000
    sample["cpu", table, row, n] = server / value["requests"] * 1e6
    sample["server", table, row, n] = server / time[1]
    sample["upstream", table, row, n] = upstream / time[1]
    sample["wrk", table, row, n] = wrk / time[1]
    others[table] += value["busy"] / hertz - server - upstream - wrk
    elapsed[table] += time[1]
}

# Sorts list[1] to list[n].
function sort(list, n,   i, j, held) {
    for (i = 2; i <= n; i++) {
        held = list[i]
        for (j = i - 1; j >= 1 && list[j] > held; j--) list[j + 1] = list[j]
        list[j + 1] = held
    }
}

function middle(sorted, n) {
    return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
}

# Over the rounds.
function median(name, table, row,   n, i, list) {
    n = count[table, row]
    for (i = 1; i <= n; i++) list[i] = sample[name, table, row, i] + 0
    sort(list, n)
    return middle(list, n)
}

# The share of the machine that everything else took, in a sentence.
function disturbance(table,   share) {
    share = 100 * others[table] / (elapsed[table] * cores)
    return sprintf("Everything else that ran meanwhile, the hypervisor's share included: %.1f %% of the machine%s.", share,
        (share > 5 ? ", which is too much to trust these figures" : ""))
}
