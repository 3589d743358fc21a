#!/bin/sh
# Machine instructions per operation, by callgrind: usage: instructions.sh BENCH...
#
# `BENCH --ops` lists its operations, one a line; `BENCH --count OP N` does exactly N of one, after the same preparation.
# The difference between two N is free of the preparation, and the same on every run.
set -eu
few=200
many=1200

command -v valgrind >/dev/null || { echo "valgrind is missing (Debian, Ubuntu: apt-get install valgrind)" >&2; exit 2; }

instructions() {
    log=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" 2>&1 >/dev/null) || { echo "$log" >&2; exit 1; }
    printf '%s\n' "$log" | sed -n 's/^==[0-9]*== Collected : *\([0-9]*\).*/\1/p'
}

printf '%-24s %-32s %12s\n' program operation instructions
for bench in "$@"; do
    for op in $("$bench" --ops); do
        low=$(instructions "$bench" --count "$op" $few)
        high=$(instructions "$bench" --count "$op" $many)
        awk -v p="$(basename "$bench")" -v o="$op" -v d="$((high - low))" -v n="$((many - few))" \
            'BEGIN { printf "%-24s %-32s %12.1f\n", p, o, d / n }'
    done
done
