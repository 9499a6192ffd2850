# The way of a second CPU: from the start-up interrupt in real mode to Rust. The first part is copied to a page below 1 MiB
# that the interrupt names, so it finds itself by DS and knows only offsets.

.section .text.smp, "ax"
.balign 16
.global guest_secondary_begin
guest_secondary_begin:
.code16
    jmp 2f
.balign 8
    .short 15                           # at 8: the boot table of start.s
    .long start_gdt
.balign 16
    .long 0                             # at 16: the root of the page tables, filled in by smp.rs
2:  cli
    cld
    mov ax, cs                          # the page, as a segment
    mov ds, ax
    mov eax, dword ptr [16]
    mov cr3, eax
    .byte 0x66                          # all 32 bits of the table's address
    lgdt [8]
    mov eax, cr4
    or eax, 0x20                        # PAE
    mov cr4, eax
    mov ecx, 0xC0000080                 # EFER.LME
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000001                  # paging, protection
    mov cr0, eax
    .byte 0x66, 0xEA                    # far jump with a 32-bit offset
    .long guest_secondary_long_mode
    .short 0x08
.global guest_secondary_end
guest_secondary_end:

.code64
guest_secondary_long_mode:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov rsp, [rip + guest_secondary_stack]
    call {secondary}
    ud2                                 # it does not return

.section .bss.smp, "aw", @nobits
.balign 8
.global guest_secondary_stack
guest_secondary_stack:
    .skip 8
