#!/bin/sh
# Throughput of a volume that fstool made beside one that plain cryptsetup made with the same options.
# usage: volume-throughput.sh COSMIAN_VM DIRECTORY ROUNDS
# Prints lines "ours|plain write|read NANOSECONDS" of 16 MiB each, after "table same" or both tables.
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
    { dmsetup table "$1"; dmsetup table "$1_dif"; } | sed -e 's/:logon:[^ ]*//' -e 's/ [0-9]*:[0-9]* / /'
}
if [ "$(table "$ours")" = "$(table "$plain")" ]; then echo "table same"; else table "$ours"; table "$plain"; fi

measure() {
    before=$(date +%s%N)
    dd "$3" "$4" bs=1M count=16 "$5" status=none
    echo "$1 $2 $(($(date +%s%N) - before))"
}
for _ in $(seq "$rounds"); do
    for volume in ours plain; do
        measure $volume write if=/dev/zero "of=/dev/mapper/cvm_bench_$volume" oflag=direct
        measure $volume read "if=/dev/mapper/cvm_bench_$volume" of=/dev/null iflag=direct
    done
done
