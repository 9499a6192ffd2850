# From the boot loader's 32-bit hand-over to 64-bit Rust: the boot core, and after it each other core.
# AT&T syntax. Operands in braces come from entry.rs.

.section .multiboot2, "a"
.balign 8
multiboot2_header:
    .long 0xE85250D6                    # magic
    .long 0                             # architecture: 32-bit protected mode
    .long multiboot2_header_end - multiboot2_header
    .long -(0xE85250D6 + (multiboot2_header_end - multiboot2_header))
    .balign 8
    .short 5, 1                         # framebuffer, optional: text mode serves as well
    .long 20, 1024, 768, 32
    .balign 8
    .short 6, 0                         # modules on page boundaries
    .long 8
    .balign 8
    .short 0, 0                         # end
    .long 8
multiboot2_header_end:

.section .bss.boot_tables, "aw", @nobits
.balign 4096
# Identity map of the first 4 GiB in pages of 2 MiB, all rights; left behind once memory.rs has built the real one.
boot_tables:
    .skip 6 * 4096

.section .rodata.boot_gdt, "a"
.balign 8
boot_gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF            # 0x08: code, 32 bits
    .quad 0x00CF93000000FFFF            # 0x10: data
    .quad 0x00AF9B000000FFFF            # 0x18: code, 64 bits
boot_gdt_end:
boot_gdt_pointer:
    .short boot_gdt_end - boot_gdt - 1
    .long boot_gdt

no_multiboot_text:
    .asciz "\r\nBulkhead halts: it was not started by a Multiboot2 boot loader (EAX is not 0x36D76289).\r\n"
no_long_mode_text:
    .asciz "\r\nBulkhead halts: it needs a 64-bit processor (CPUID.80000001H:EDX.LM), and this processor is not one.\r\n"

.section .text.boot, "ax"
.code32
.global bulkhead_start
bulkhead_start:
    movl %eax, %esi
    rdtsc                               # the hypervisor's first instant; the move before it only saves the magic
    movl %eax, {entry_tsc}
    movl %edx, {entry_tsc} + 4
    movl %ebx, %edi                     # boot information, across CPUID
    cli
    cld
    movl ${stacks} + {stack_top}, %esp
    movl $no_multiboot_text, %ebp
    cmpl $0x36D76289, %esi
    jne halt_with_text
    movl $no_long_mode_text, %ebp
    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb halt_with_text
    movl $0x80000001, %eax
    cpuid
    btl $29, %edx
    jnc halt_with_text

    # The table of tables, four page directories behind it, 512 pages of 2 MiB in each.
    movl $boot_tables + 0x1003, boot_tables
    movl $boot_tables + 0x2003, boot_tables + 0x1000
    movl $boot_tables + 0x3003, boot_tables + 0x1008
    movl $boot_tables + 0x4003, boot_tables + 0x1010
    movl $boot_tables + 0x5003, boot_tables + 0x1018
    xorl %ecx, %ecx
1:  movl %ecx, %eax
    shll $21, %eax
    orl $0x83, %eax                     # present, writable, large
    movl %eax, boot_tables + 0x2000(, %ecx, 8)
    incl %ecx
    cmpl $2048, %ecx
    jne 1b

    lgdtl boot_gdt_pointer
    call switch_paging_on
    ljmpl $0x18, $boot_core_64

# Paging on, in compatibility mode until the caller's far jump. SDM 3A 10.8.5.
switch_paging_on:
    movl $0x20, %eax                    # CR4.PAE
    movl %eax, %cr4
    movl $boot_tables, %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx              # IA32_EFER
    rdmsr
    orl $0x100, %eax                    # LME
    wrmsr
    movl $0x80010033, %eax              # PG, WP, NE, ET, MP, PE; caches on
    movl %eax, %cr0
    ret

# Prints the text at EBP at the top of the VGA text screen, and on a serial port that has I/O ports, then halts.
halt_with_text:
.if {uart}
    movw ${uart} + 3, %dx
    movb $0x83, %al                     # 8N1, divisor accessible
    outb %al, %dx
    movw ${uart}, %dx
    movw ${divisor}, %ax
    outb %al, %dx
    movb %ah, %al
    incw %dx
    outb %al, %dx
    incw %dx
    incw %dx
    movb $0x03, %al
    outb %al, %dx
.endif
    movl $0xB8000, %edi
2:  movb (%ebp), %bl
    testb %bl, %bl
    jz 5f
    cmpb $0x20, %bl
    jb 3f
    movb %bl, (%edi)
    movb $0x0F, 1(%edi)
    addl $2, %edi
3:
.if {uart}
    movl $1000000, %ecx                 # a port that never empties must not keep the text off the screen
4:  movw ${uart} + 5, %dx
    inb %dx, %al
    testb $0x20, %al
    loopz 4b
    movw ${uart}, %dx
    movb %bl, %al
    outb %al, %dx
.endif
    incl %ebp
    jmp 2b
5:  hlt
    jmp 5b

# Copied to a page below 1 MiB; a start-up IPI lets a core begin here in real mode, at offset 0 of its segment.
.code16
.global ap_trampoline
ap_trampoline:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl ap_gdt_pointer - ap_trampoline
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x08, $application_core_32
ap_gdt_pointer:
    .short boot_gdt_end - boot_gdt - 1
    .long boot_gdt
.global ap_trampoline_end
ap_trampoline_end:

.code32
application_core_32:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl {ap_stack_top}, %esp
    call switch_paging_on
    ljmpl $0x18, $application_core_64

.code64
boot_core_64:
    call clear_segments
    movl ${stacks} + {stack_top}, %esp
    movl %edi, %edi                     # zero-extended: the address of the boot information
    xorl %ebp, %ebp
    call {boot_core_main}
    ud2

application_core_64:
    call clear_segments
    movl {ap_stack_top}, %esp
    xorl %ebp, %ebp
    call {application_core_main}
    ud2

clear_segments:
    xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw %ax, %fs
    movw %ax, %gs
    ret
