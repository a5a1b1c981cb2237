# Says where the time of the profiled server went.
#
#   perf script --inline -F comm,ip,sym,dso | awk -f shares.awk
#
# A sample is a paragraph: a line with the thread's name, then the functions that were running, the innermost first.

BEGIN {
    # Every sample belongs to one step: the first of which a function was running, whatever that had called.
    step("the proof's signature, and its key", "verify_signature")
    step("the replay store", "::record_use")
    step("the access token", "AccessTokenVerifier>::verify")
    step("the proof's form and claims", "ClaimedProof::read|for_token")
    step("the rest of the layer", "layer::decide")
    step("the handler and its response", "resource_server::protected|axum::json|serde_json")
    step("the kernel (but for calls from above)", "[[]kernel")
    step("hyper, axum, tokio", ".")
    # Of these a sample may be several, or none.
    kind("AWS-LC", "EVP_Digest|nistz256|aws_lc_[0-9]")
    kind("moka", "moka::|crossbeam|CachedTokens.*::get|get_or_insert_with_hash")
    kind("malloc and free", "_int_malloc|_int_free|malloc_consolidate|libc_(malloc|calloc|realloc|free)|unlink_chunk")
    kind("JSON", "serde|visit_map")
    kind("base64", "base64::")
    kind("SHA-256, but for AWS-LC's", "sha2::")
    kind("SipHash", "sip::Hasher|hash_one")
    kind("metrics and tracing", "telemetry|tracing|metrics::")
    kind("the kernel", "[[]kernel")
}

function step(name, functions) { steps++; step_name[steps] = name; step_is[steps] = functions }
function kind(name, functions) { kinds++; kind_name[kinds] = name; kind_is[kinds] = functions }

/^[^ \t]/ { stack = "" }
/^[ \t]/ {
    # The name of an inlined function ends with the types that it was made for, which say nothing.
    if (/\(inlined\)$/) sub(/<.*/, "")
    stack = stack "\n" $0
}
/^$/ { count() }

function count(   i) {
    if (stack == "") return
    samples++
    for (i = 1; stack !~ step_is[i]; i++);
    in_step[i]++
    for (i = 1; i <= kinds; i++) if (stack ~ kind_is[i]) of_kind[i]++
    stack = ""
}

END {
    count()
    if (!samples) { print "no samples"; exit 1 }
    printf "%d samples of the server's CPU time\n\nBy step:\n", samples
    for (i = 1; i <= steps; i++) printf "%6.1f %%  %s\n", 100 * in_step[i] / samples, step_name[i]
    print "\nBy kind, in whatever step:"
    for (i = 1; i <= kinds; i++) printf "%6.1f %%  %s\n", 100 * of_kind[i] / samples, kind_name[i]
}
