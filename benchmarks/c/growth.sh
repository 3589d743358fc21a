#!/bin/sh
# How much an operation's instructions grow: usage: growth.sh BENCH
#
# The rows of BENCH are named OPERATION@WHERE. For each operation: the fewest instructions, the most, and their ratio.
set -eu
sh "$(dirname "$0")/instructions.sh" "$1" | tee /dev/stderr | awk '
    NR > 1 {
        at = index($2, "@"); op = substr($2, 1, at - 1); where = substr($2, at + 1)
        if (!(op in least)) { order[++n] = op; least[op] = $3; most[op] = $3; low[op] = where; high[op] = where }
        if ($3 < least[op]) { least[op] = $3; low[op] = where }
        if ($3 > most[op]) { most[op] = $3; high[op] = where }
    }
    END {
        printf "%-16s %12s %-10s %12s %-10s %6s\n", "operation", "least", "where", "most", "where", "ratio"
        for (i = 1; i <= n; i++) {
            op = order[i]
            printf "%-16s %12.1f %-10s %12.1f %-10s %6.2f\n", op, least[op], low[op], most[op], high[op], most[op] / least[op]
        }
    }'
