/** The policy that the packages bring as /usr/share/cosmian_vm/ima-policy, so that the verifier knows it by its digest. */
export const SHIPPED_IMA_POLICY = `# IMA policy for a VM whose executables are to be attested.
#
# Put it in place when the image is built, before the snapshot is taken:
#   install -D -m 0644 /usr/share/cosmian_vm/ima-policy /etc/ima/ima-policy
# and boot with the kernel argument ima_policy=tcb: what runs before systemd loads this file, and the file itself, are measured
# by that built-in policy. systemd loads it once, early in each boot; until the next boot it cannot be changed.
# Linux 5.12 or newer; an older kernel refuses the file because of KEXEC_CMDLINE or CRITICAL_DATA, and so measures nothing.
#
# The first rule that fits decides. Nothing is left out by file system: a program in a tmpfs or a memory file
# runs like any other, so it is measured like any other.
# \`cosmian_vm ima policy FILE\` tells what a policy measures and what it leaves out.

# Programs, scripts that are run by their own name, and their interpreters
measure func=BPRM_CHECK mask=MAY_EXEC
# Shared libraries, and everything else that is mapped to be executed
measure func=MMAP_CHECK mask=MAY_EXEC
# What the kernel takes into itself
measure func=MODULE_CHECK
measure func=FIRMWARE_CHECK
measure func=KEXEC_KERNEL_CHECK
measure func=KEXEC_INITRAMFS_CHECK
measure func=KEXEC_CMDLINE
# Later changes of this policy
measure func=POLICY_CHECK
# What the kernel holds that decides about others: state and policy of SELinux, tables of the device mapper
measure func=CRITICAL_DATA

# Every file that root reads, configuration included. Only for machines whose files hardly change: each new log or
# state file would be an unknown one. The pseudo file systems have to be left out first.
# dont_measure func=FILE_CHECK fsmagic=0x9fa0
# dont_measure func=FILE_CHECK fsmagic=0x62656572
# dont_measure func=FILE_CHECK fsmagic=0x64626720
# dont_measure func=FILE_CHECK fsmagic=0x1021994
# dont_measure func=FILE_CHECK fsmagic=0x73636673
# dont_measure func=FILE_CHECK fsmagic=0x27e0eb
# dont_measure func=FILE_CHECK fsmagic=0x63677270
# dont_measure func=FILE_CHECK fsmagic=0xcafe4a11
# dont_measure func=FILE_CHECK fsmagic=0xde5e81e4
# measure func=FILE_CHECK mask=^MAY_READ euid=0
`
