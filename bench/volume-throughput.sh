#!/bin/sh
# Throughput of a volume that fstool made beside one that plain cryptsetup made with the same options: raw mapping beside raw mapping.
# usage: volume-throughput.sh COSMIAN_VM DIRECTORY PAIRS
# Containers are in memory, so that no disk is measured. Prints "same" or "differs" with what of both mappings does, then lines
# "write|read OURS PLAIN": seconds for the same 4 MiB. The first of each pair is the one and the other in turn.
set -e
executable=$1
directory=$2
pairs=$3
ours=cvm_bench_ours
plain=cvm_bench_plain
size=32
clean() {
    "$executable" fstool wipe "$ours" --yes --quiet --tpm none --volumes "$directory/volumes.toml" || true
    cryptsetup close "$plain" 2> /dev/null || true
    umount "$directory"
}
mkdir -p "$directory"
mount -t tmpfs -o size=160M tmpfs "$directory"
trap clean EXIT
mkdir "$directory/plain"
printf bench > "$directory/password"
"$executable" fstool create --quiet --tpm none --volumes "$directory/volumes.toml" --no-boot --size ${size}MiB \
    --location "$directory/ours" --name "$ours" --password-file "$directory/password"
"$executable" fstool unmount "$ours" --quiet --tpm none --volumes "$directory/volumes.toml"

fallocate --length ${size}MiB "$directory/plain/container"
truncate --size 16M "$directory/plain/header"
cryptsetup luksFormat --batch-mode --type luks2 --header "$directory/plain/header" --cipher aes-xts-plain64 --key-size 512 \
    --sector-size 4096 --integrity hmac-sha256 --integrity-no-wipe --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
    --key-file "$directory/password" "$directory/plain/container"
cryptsetup open --header "$directory/plain/header" --key-file "$directory/password" "$directory/plain/container" "$plain"

# All that the kernel was told, and what it made of that: only the key's name, the numbers of devices and the loop's file may differ.
settings() {
    for name in "$1" "$1_dif"; do
        dmsetup table "$name" | sed -e 's/ :[0-9]*:logon:[^ ]* / KEY /' -e 's/ [0-9]\{1,\}:[0-9]\{1,\} / DEVICE /'
        kernel=$(basename "$(readlink -f "/dev/mapper/$name")")
        (cd "/sys/class/block/$kernel" && grep -s . size ro alignment_offset queue/* || true)
        loop=$(ls "/sys/class/block/$kernel/slaves")
    done
    (cd "/sys/class/block/$loop" && grep -s . size ro alignment_offset queue/* loop/dio loop/offset loop/sizelimit loop/partscan || true)
}
settings "$ours" > "$directory/settings-ours"
settings "$plain" > "$directory/settings-plain"
if diff "$directory/settings-ours" "$directory/settings-plain" > "$directory/difference"; then echo same; else
    echo differs
    cat "$directory/difference"
fi

# dm-integrity writes its journal back when it likes, and udev looks at a device that was written: not during somebody else's turn.
settle() {
    for name in "$ours" "$plain"; do dmsetup suspend "${name}_dif" && dmsetup resume "${name}_dif"; done
    udevadm settle 2> /dev/null || true
}
transfer() {
    settle
    LC_ALL=C dd "$@" bs=1M count=4 2>&1 | sed -n 's/.*copied, \([0-9.e-]*\) s.*/\1/p'
}
measure() {
    case $1 in
        write) transfer if=/dev/zero "of=/dev/mapper/$2" oflag=direct conv=fsync ;;
        read) transfer "if=/dev/mapper/$2" of=/dev/null iflag=direct ;;
    esac
}
# Every sector of both once, from the same program.
for name in "$ours" "$plain"; do dd if=/dev/zero "of=/dev/mapper/$name" bs=1M oflag=direct status=none 2> /dev/null || true; done
for direction in write read; do
    pair=0
    while [ $pair -lt "$pairs" ]; do
        if [ $((pair % 2)) = 0 ]; then
            first=$(measure $direction "$ours")
            second=$(measure $direction "$plain")
            echo "$direction $first $second"
        else
            first=$(measure $direction "$plain")
            second=$(measure $direction "$ours")
            echo "$direction $second $first"
        fi
        pair=$((pair + 1))
    done
done
