#!/bin/sh
# Throughput of a volume that fstool made beside one that plain cryptsetup made with the same options.
# usage: volume-throughput.sh COSMIAN_VM DIRECTORY ROUNDS
# Prints lines "ours|plain write|read NANOSECONDS" of 4 MiB each, after "table same" or both tables. After five rounds it
# ends as soon as the fastest of each says that ours is as fast, within two hundredths; at the latest after ROUNDS.
set -e
executable=$1
directory=$2
rounds=$3
ours=cvm_bench_ours
plain=cvm_bench_plain
clean() {
    "$executable" fstool wipe "$ours" --yes --quiet --tpm none --volumes "$directory/volumes.toml" || true
    cryptsetup close "$plain" 2> /dev/null || true
    rm -rf "$directory/plain" "$directory/ours"
}
mkdir -p "$directory/plain"
trap clean EXIT
printf bench > "$directory/password"
"$executable" fstool create --quiet --tpm none --volumes "$directory/volumes.toml" --no-boot --size 32MiB \
    --location "$directory/ours" --name "$ours" --password-file "$directory/password"
"$executable" fstool unmount "$ours" --quiet --tpm none --volumes "$directory/volumes.toml"

truncate --size 32M "$directory/plain/container"
truncate --size 16M "$directory/plain/header"
cryptsetup luksFormat --batch-mode --type luks2 --header "$directory/plain/header" --cipher aes-xts-plain64 --key-size 512 \
    --sector-size 4096 --integrity hmac-sha256 --integrity-no-wipe --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
    --key-file "$directory/password" "$directory/plain/container"
cryptsetup open --header "$directory/plain/header" --key-file "$directory/password" "$directory/plain/container" "$plain"
dd if=/dev/zero of="/dev/mapper/$plain" bs=1M oflag=direct status=none 2> /dev/null || true

# The key's name and the numbers of the devices below differ, nothing else.
table() {
    { dmsetup table "$1"; dmsetup table "$1_dif"; } | sed -e 's/ :[0-9]*:logon:[^ ]* / KEY /' -e 's/ [0-9]\{1,\}:[0-9]\{1,\} / DEVICE /'
}
if [ "$(table "$ours")" = "$(table "$plain")" ]; then echo "table same"; else table "$ours"; table "$plain"; fi

# Prints the nanoseconds of one transfer, and keeps the fewest in $least_VOLUME_DIRECTION: what disturbs only makes slower.
measure() {
    before=$(date +%s%N)
    dd "$3" "$4" bs=1M count=4 "$5" status=none
    taken=$(($(date +%s%N) - before))
    echo "$1 $2 $taken"
    eval "least=\${least_$1_$2:-$taken}"
    if [ "$taken" -lt "$least" ]; then least=$taken; fi
    eval "least_$1_$2=$least"
}
enough() {
    [ "$round" -ge 5 ] && [ $((least_ours_write * 98)) -le $((least_plain_write * 100)) ] &&
        [ $((least_ours_read * 98)) -le $((least_plain_read * 100)) ]
}
for round in $(seq "$rounds"); do
    for volume in ours plain; do
        measure $volume write if=/dev/zero "of=/dev/mapper/cvm_bench_$volume" oflag=direct
        measure $volume read "if=/dev/mapper/cvm_bench_$volume" of=/dev/null iflag=direct
    done
    if enough; then break; fi
done
