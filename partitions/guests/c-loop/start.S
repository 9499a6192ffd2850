/* From the 32-bit hand-over of the hypervisor (or GRUB) to C: an identity map of 4 GiB by 2 MiB pages, long mode,
 * a stack of 64 KiB. Calls guest_main(magic, boot_info). Exceptions are not handled: one shuts the guest
 * down, and the hypervisor reports it. */

#define PRESENT_WRITABLE 0x3
#define LARGE_PAGE 0x80

    .section .multiboot2, "a"
    .balign 8
header:
    .long 0xE85250D6                    /* magic, architecture, length, checksum */
    .long 0
    .long header_end - header
    .long -(0xE85250D6 + (header_end - header))
    .short 0                            /* end tag */
    .short 0
    .long 8
header_end:

    .text
    .code32
    .globl _start
_start:
    cli
    cld
    movl %eax, %edi                     /* first argument: the magic */
    movl %ebx, %esi                     /* second: the boot information */
    movl $stack_top, %esp

    movl $(tables + 0x1000 + PRESENT_WRITABLE), tables
    movl $(tables + 0x2000 + PRESENT_WRITABLE), %eax
    xorl %ecx, %ecx
1:  movl %eax, tables + 0x1000(, %ecx, 8)
    addl $0x1000, %eax
    incl %ecx
    cmpl $4, %ecx
    jne 1b

    movl $(PRESENT_WRITABLE | LARGE_PAGE), %eax
    xorl %ecx, %ecx
1:  movl %eax, tables + 0x2000(, %ecx, 8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $2048, %ecx
    jne 1b

    movl %cr4, %eax
    orl $0x20, %eax                     /* PAE */
    movl %eax, %cr4
    movl $tables, %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx              /* EFER.LME */
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000001, %eax               /* paging, protection */
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $0x08, $long_mode

    .code64
long_mode:
    xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $stack_top, %esp
    movl %edi, %edi                     /* the upper halves are undefined after the switch */
    movl %esi, %esi
    call guest_main
1:  cli
    hlt
    jmp 1b

    .section .rodata
    .balign 8
gdt:
    .quad 0
    .quad 0x00AF9A000000FFFF            /* 64-bit code */
gdt_pointer:
    .short gdt_pointer - gdt - 1
    .long gdt

    .bss
    .balign 4096
tables:
    .skip 6 * 4096
    .skip 64 * 1024
stack_top:
