# From 64-bit mode down to real mode and back. What runs in real mode is copied to a page below 1 MiB, which is its segment; the rest
# runs where it is linked. Offsets in the page from 0xF00 on: what was seen; the stack ends below.

.set SEGMENT, 0x900
.set SOFTWARE, 0xF00                    # how often the software interrupt came
.set OWN, 0xF04                         # interrupts to itself
.set TIMER, 0xF08                       # timer interrupts
.set PORT, 0xF0C                        # what the port said
.set LEAVES, 0xF10                      # EAX of CPUID leaf 0
.set APIC_BASE, 0xF14                   # the lower half of IA32_APIC_BASE
.set CONTROL, 0xF18                     # CR0 there

.section .text.real_mode, "ax"
.code64
.global guest_real_mode
guest_real_mode:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    pushfq
    cli
    sgdt [rip + real_mode_saved]
    sidt [rip + real_mode_saved + 16]
    mov [rip + real_mode_saved + 32], rsp
    lgdt [rip + real_mode_gdt_pointer]
    push 0x10
    lea rax, [rip + real_mode_down]
    push rax
    retfq

.code32
real_mode_down:
    mov eax, cr0
    and eax, 0x7FFFFFFF                 # paging off
    mov cr0, eax
    mov ecx, 0xC0000080                 # EFER.LME off
    rdmsr
    and eax, 0xFFFFFEFF
    wrmsr
    mov eax, 0x20
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    .byte 0xEA                          # far jump into the copied page, 16 bits wide
    .long 0
    .short 0x18

.balign 16
.global guest_real_mode_begin
guest_real_mode_begin:
.code16
    jmp 3f
.balign 8
    .short 0x3FF                        # at 8: the table of vectors, at address 0
    .long 0
3:  mov eax, cr0
    and eax, 0xFFFFFFFE                 # protection off
    mov cr0, eax
    .byte 0xEA
    .short 2f - guest_real_mode_begin
    .short SEGMENT
2:  mov ax, cs
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, SOFTWARE
    mov eax, cr0
    mov dword ptr [CONTROL], eax
    lidt [8]
    int 0x41
    mov dx, 0x3FD
    xor eax, eax
    in al, dx
    mov dword ptr [PORT], eax
    xor eax, eax
    cpuid
    mov dword ptr [LEAVES], eax
    mov ecx, 0x1B
    rdmsr
    mov dword ptr [APIC_BASE], eax
    mov ecx, 0x83F                      # an interrupt to itself
    mov eax, 0x42
    xor edx, edx
    wrmsr
    sti
    nop
    nop
    cli
    mov ecx, 0x832                      # the timer, by the deadline
    mov eax, 0x40043
    xor edx, edx
    wrmsr
    rdtsc
    add eax, 20000
    adc edx, 0
    mov ecx, 0x6E0
    wrmsr
    sti
    hlt
    cli
    mov ecx, 0x832                      # masked again
    mov eax, 0x10000
    xor edx, edx
    wrmsr
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    .byte 0x66, 0xEA                    # far jump with a 32-bit offset
    .long real_mode_up
    .short 0x10

.irp name, SOFTWARE, OWN, TIMER
real_mode_\name:
    push eax
    push ecx
    push edx
    inc dword ptr [\name]
    .ifnc \name, SOFTWARE
    mov ecx, 0x80B                      # end of interrupt
    xor eax, eax
    xor edx, edx
    wrmsr
    .endif
    pop edx
    pop ecx
    pop eax
    iret
.endr

.balign 2
.global guest_real_mode_handlers
guest_real_mode_handlers:
    .short real_mode_SOFTWARE - guest_real_mode_begin
    .short real_mode_OWN - guest_real_mode_begin
    .short real_mode_TIMER - guest_real_mode_begin
.global guest_real_mode_end
guest_real_mode_end:

.code32
real_mode_up:
    mov ecx, 0xC0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    .byte 0xEA
    .long real_mode_back
    .short 0x08

.code64
real_mode_back:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov rsp, [rip + real_mode_saved + 32]
    lgdt [rip + real_mode_saved]
    lidt [rip + real_mode_saved + 16]
    popfq
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

.section .rodata.real_mode, "a"
.balign 8
real_mode_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF            # 0x08: 64-bit code
    .quad 0x00CF9B000000FFFF            # 0x10: flat 32-bit code
    .quad 0x00009B009000FFFF            # 0x18: 16-bit code, the page
    .quad 0x000093009000FFFF            # 0x20: 16-bit data, the page
real_mode_gdt_pointer:
    .short real_mode_gdt_pointer - real_mode_gdt - 1
    .quad real_mode_gdt

.section .bss.real_mode, "aw", @nobits
.balign 8
real_mode_saved:
    .skip 40
