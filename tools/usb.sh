#!/usr/bin/env bash
# Writes the disk image to a USB stick, after asking.
#
#   tools/usb.sh IMAGE DEVICE
#
# Refuses what is not a whole removable disk, and what is mounted or used for swapping. A plain file
# that exists stands for a stick. All that was on the stick is lost, so the answer to the question
# is the stick's own name, as it was given here.
set -euo pipefail

fail() {
    printf 'usb: %s\n' "$*" >&2
    exit 1
}

image=${1:?the image} device=${2:-}
[[ -n $device ]] || fail 'which stick? Run `make usb DEV=/dev/sdX`; `lsblk -o NAME,RM,SIZE,MODEL,MOUNTPOINTS` lists what there is'
[[ -e $device ]] || fail "$device does not exist"
[[ $(realpath "$device") != $(realpath "$image") ]] || fail "$device is the image itself"

if [[ -f $device ]]; then
    what="the file $device"
elif [[ ! -b $device ]]; then
    fail "$device is no disk"
else
    # A stick says that it is removable; a large one may only say that it hangs at USB.
    read -r type removable transport < <(lsblk --nodeps --noheadings -o TYPE,RM,TRAN "$device") ||
        fail "lsblk knows nothing of $device"
    [[ $type == disk ]] || fail "$device is no whole disk but a ${type:-nothing known}"
    [[ $removable == 1 || $transport == usb ]] || fail "$device can't be removed: not a stick"
    used=$(lsblk --noheadings -o MOUNTPOINT "$device" | grep -v '^ *$' || true)
    [[ -z $used ]] || fail "$device is in use at" $used
    what="$device, $(lsblk --nodeps --noheadings -o SIZE,VENDOR,MODEL "$device" | xargs)"
fi
[[ -w $device ]] || fail "$device is not yours to write; try with sudo"

printf 'All that is on %s will be lost. To go on, type %s: ' "$what" "$device"
read -r answer || answer=
[[ $answer == "$device" ]] || fail 'nothing was written'
dd if="$image" of="$device" bs=1M conv=fsync,notrunc status=none
length=$(stat -c %s "$image")
cmp -n "$length" "$image" "$device" || fail "$device does not hold what was written to it"
printf 'Written and read back: %s bytes. Boot from it, with Secure Boot off.\n' "$length"
