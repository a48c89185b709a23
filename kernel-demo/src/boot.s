# From the boot loader's 32-bit world, and from an application processor's 16-bit one, into Rust.
#
# PVH and multiboot2 both enter at boot_start: 32-bit protected mode, no paging, the address of
# the boot information in %ebx, and in %eax either multiboot2's magic number or nothing of use.
# Application processors start in the copied page at 16 bits and join at enter_long.
#
# The tables here map the first 4 GiB twice, in 2 MiB pages: at address 0, so that this code can
# turn paging on under its own feet, and at 0xffff_8000_0000_0000, where the direct map of all
# memory begins. paging.rs goes on from there.

.section .multiboot2, "a"
.balign 8
multiboot2_header:
    .long 0xe85250d6, 0, multiboot2_end - multiboot2_header
    .long -(0xe85250d6 + multiboot2_end - multiboot2_header)
    .short 3, 0                         # tag 3: where to enter
    .long 12, boot_start, 0
    .balign 8
    .short 5, 1                         # tag 5: a screen of pixels, if there is one
    .long 20, 1024, 768, 32
    .balign 8
    .short 0, 0                         # tag 0: the end
    .long 8
multiboot2_end:

.section .boot.text, "ax"
.code32
.global boot_start
boot_start:
    cli
    cld
    movl %eax, %edi
    movl %ebx, %esi
    movl $first_cpu, %ebp

enter_long:                             # %ebp: where to go on in 64-bit mode
    movl $(1 << 5), %eax                # PAE
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx              # EFER: long mode, no-execute pages
    rdmsr
    orl $((1 << 8) | (1 << 11)), %eax
    wrmsr
    movl $0x80010011, %eax              # paging, write protection, protected mode; caches on
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $0x08, $long_mode

trampoline32:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %ss
    movl $next_cpu, %ebp
    jmp enter_long

.code64
long_mode:
    xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %fs
    movw %ax, %gs
    movw %ax, %ss
    jmp *%rbp

first_cpu:
    movq $boot_stack_end, %rsp
    xorl %ebp, %ebp
    movl %edi, %edi
    movl %esi, %esi
    call kernel_main
    ud2

next_cpu:                               # smp.rs wrote these two before it sent the SIPI
    movq next_cpu_stack, %rsp
    movq next_cpu_index, %rdi
    xorl %ebp, %ebp
    call next_cpu_main
    ud2

# Copied to a page below 1 MiB, and entered there in real mode with %cs at its start.
.code16
.global trampoline_start, trampoline_end
trampoline_start:
    cli
    movw %cs, %ax
    movw %ax, %ds
    lgdtl trampoline_gdt_pointer - trampoline_start
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $0x18, $trampoline32
trampoline_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
trampoline_end:

.section .boot.tables, "aw"
.balign 4096
boot_pml4:
    .quad low_pdpt + 3
    .fill 255, 8, 0
    .quad direct_pdpt + 3               # paging.rs fills in what lies above 4 GiB
    .fill 255, 8, 0
low_pdpt:
    .quad first_4_gib + 0x0003, first_4_gib + 0x1003, first_4_gib + 0x2003, first_4_gib + 0x3003
    .fill 508, 8, 0
direct_pdpt:
    .quad first_4_gib + 0x0003, first_4_gib + 0x1003, first_4_gib + 0x2003, first_4_gib + 0x3003
    .fill 508, 8, 0
first_4_gib:                            # present, writable, 2 MiB
    .set page, 0
    .rept 2048
    .quad page * 0x200000 + 0x83
    .set page, page + 1
    .endr

gdt:                                    # null, 64-bit code, data, 32-bit code
    .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff, 0x00cf9a000000ffff
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt

.global next_cpu_stack, next_cpu_index
.balign 8
next_cpu_stack: .quad 0
next_cpu_index: .quad 0

.section .bss.boot_stack, "aw", @nobits
.balign 16
    .skip 65536
boot_stack_end:

.text                                   # the compiler goes on in this file
.code64
