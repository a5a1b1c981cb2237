# Resident memory of the server while records of used proofs come and go. A part of `run`, which has the helpers.

measure_memory() {
    local both=${cores[0]},${cores[1]} set=0 sent=0 round began name
    # Time for a million requests to two servers before the first record is dropped.
    max_age=120
    [ "$mode" != quick ] || max_age=5
    # So long is a record kept of a client whose clock is right: with the leeway, and to the end of the second.
    retention=$((max_age + 31))
    coproc signer { exec "$tools/proofs" "$work" "$url/protected" "$clients" 1 -; }
    started[signer_PID]=proofs
    sign "$warm_up"
    local -A pids addresses
    start_resource_server "$both"
    pids[system]=$pid addresses[system]=$address
    preload=libjemalloc.so.2 start_resource_server "$both"
    pids[jemalloc]=$pid addresses[jemalloc]=$address
    grep -q libjemalloc "/proc/$pid/maps" || { echo "$0: jemalloc is not loaded" >&2; exit 1; }
    echo "measuring: two servers and wrk on $both" >&2
    note "at the start"
    began=$SECONDS
    send_to_both "$warm_up"
    note "after $sent requests"
    for ((round = 1; round <= rounds; round++)); do
        sign "$share"
        send_to_both "$share"
    done
    seconds=$((SECONDS - began))
    note "after $sent requests"
    for round in 1 2 3; do
        echo "waiting for $retention s" >&2
        sleep $((retention + 1))
        note "$retention s later"
        sign "$share"
        send_to_both "$share"
        note "after $share more"
    done
    for address in "${addresses[@]}"; do assert_replay_is_rejected "$address"; done
    for pid in "${pids[@]}"; do stop TERM "$pid"; done
}

# proofs: the next set of so many, signed now
sign() {
    echo "$1" >&"${signer[1]}"
    read -r set <&"${signer[0]}"
}

# proofs of the set
send_to_both() {
    for name in "${!addresses[@]}"; do
        load "$both" "${addresses[$name]}/protected" "$work/$set" > "$work/measured"
    done
    sent=$((sent + $1))
}

# moment
note() {
    echo "| $1 | $(memory "${pids[system]}" VmRSS) | $(memory "${pids[jemalloc]}" VmRSS) |" | tee -a "$work/memory" >&2
}

memory_results() {
    cat << END
# Memory over time

Written by \`$command\`. Two servers of the example \`resource_server\`, one with the allocator of the system, one with jemalloc.

- $(date -u +%F); $(model), $(nproc --all) cores; Linux $(uname -r)
- $(rustc --version | cut -d' ' -f1,2), tower-dpop $(version_of tower-dpop), $(ldd --version | sed -n '1s/.* /glibc /p'), jemalloc $(dpkg-query -W -f '${Version}' libjemalloc2)

| resident memory, MB | glibc | jemalloc |
|---|---:|---:|
$(cat "$work/memory")

- Both get the same proofs, of $clients clients: $warm_up as a warm-up, then $rounds times $share, in $seconds s. Proofs are accepted for
  $max_age s (\`--max-age\`), and their records are kept for $retention s, so none was dropped by then.
- A record is dropped when the list that it is in is used next. So memory is freed as new requests come, not by time alone.
- The lists are small blocks, and some record is alive on nearly every page. glibc keeps such pages, for what is allocated
  next. jemalloc, here preloaded with its default settings, has pages for blocks of one size, and gives empty ones back.
END
}
