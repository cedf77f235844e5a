#!/bin/sh
# Counts to $1, one step every $2 seconds, and goes on from its checkpoint: `count.sh 600 0.1` takes a minute, however
# often its worker is stopped or killed in between.
n=0
[ -e "$SHEAF_CHECKPOINT" ] && n=$(cat "$SHEAF_CHECKPOINT")
from=$n

# Beside it, then renamed: a checkpoint is never seen half written.
save() {
    echo "$n" > "$SHEAF_CHECKPOINT.new"
    mv "$SHEAF_CHECKPOINT.new" "$SHEAF_CHECKPOINT"
}
# The worker has to stop.
trap save USR1

while [ "$n" -lt "$1" ]; do
    sleep "$2"
    n=$((n + 1))
    # Now and then without being asked: a worker that is killed asks nobody.
    [ $((n % 10)) -eq 0 ] && save
done
echo "counted from $from to $n"
