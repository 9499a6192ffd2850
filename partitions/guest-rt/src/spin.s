# Fills the general registers and the flags, runs a loop that changes none of them but RCX, and stores what
# it then finds.

.set IMAGE_RFLAGS, 128

.section .text.spin, "ax"

# Everything up to the loop. It runs RCX times and must leave registers and flags alone.
.macro begin name
.balign 16
.global \name
\name:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [rip + guest_spin_rsp], rsp
    push qword ptr [rdi + IMAGE_RFLAGS]
    popfq
    mov rax, [rdi]
    mov rbx, [rdi + 8]
    mov rcx, [rdi + 16]
    mov rdx, [rdi + 24]
    mov rsi, [rdi + 32]
    mov rbp, [rdi + 48]
    mov rsp, [rdi + 56]
    mov r8, [rdi + 64]
    mov r9, [rdi + 72]
    mov r10, [rdi + 80]
    mov r11, [rdi + 88]
    mov r12, [rdi + 96]
    mov r13, [rdi + 104]
    mov r14, [rdi + 112]
    mov r15, [rdi + 120]
    mov rdi, [rdi + 40]
.endm

begin guest_spin_plain
2:  nop
    loop 2b
    jmp guest_spin_end

begin guest_spin_pause
2:  pause
    loop 2b
    jmp guest_spin_end

begin guest_spin_port                   # an exit under a hypervisor; natively the POST code
2:  out 0x80, al
    loop 2b
    jmp guest_spin_end

begin guest_spin_shadow                 # STI holds interrupts off until CLI has run: none can come
2:  sti
    cli
    loop 2b
    jmp guest_spin_end

# MOV changes no flag, so the flags are still those of the loop when PUSHF stores them.
guest_spin_end:
    mov [rip + guest_spin_image], rax
    mov [rip + guest_spin_image + 8], rbx
    mov [rip + guest_spin_image + 16], rcx
    mov [rip + guest_spin_image + 24], rdx
    mov [rip + guest_spin_image + 32], rsi
    mov [rip + guest_spin_image + 40], rdi
    mov [rip + guest_spin_image + 48], rbp
    mov [rip + guest_spin_image + 56], rsp
    mov [rip + guest_spin_image + 64], r8
    mov [rip + guest_spin_image + 72], r9
    mov [rip + guest_spin_image + 80], r10
    mov [rip + guest_spin_image + 88], r11
    mov [rip + guest_spin_image + 96], r12
    mov [rip + guest_spin_image + 104], r13
    mov [rip + guest_spin_image + 112], r14
    mov [rip + guest_spin_image + 120], r15
    mov rsp, [rip + guest_spin_rsp]
    pushfq
    pop [rip + guest_spin_image + IMAGE_RFLAGS]
    push 2                              # the flags of ordinary code, interrupts off
    popfq
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    lea rax, [rip + guest_spin_image]
    ret

.section .bss.spin, "aw", @nobits
.balign 16
guest_spin_image:
    .skip 17 * 8
guest_spin_rsp:
    .skip 8
