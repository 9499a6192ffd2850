# One stub for each interrupt vector, and what they share. Every stub is 16 bytes long.

.section .text.vectors, "ax"
.balign 16
.global guest_stubs
guest_stubs:
.set vector, 0
.rept 32                                # exceptions: those without an error code push a zero
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    .else
    push 0
    .endif
    .byte 0x68                          # push imm32: in this syntax `push vector` would read memory
    .long vector
    jmp exception_common
    .set vector, vector + 1
.endr
.rept 224                               # interrupts: read the clock as early as two saved registers allow
    .balign 16
    push rax
    push rdx
    rdtsc
    .byte 0x68                          # push imm32: in this syntax `push vector` would read memory
    .long vector
    jmp interrupt_common
    .set vector, vector + 1
.endr

exception_common:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    mov rbx, rsp                        # kept over the call by its convention
    and rsp, -16
    cld
    call {exception}
    mov rsp, rbx
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    add rsp, 16                         # vector and error code
    iretq

interrupt_common:
    push rcx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    shl rdx, 32
    or rax, rdx
    mov rsi, rax                        # second argument: the TSC
    mov edi, [rsp + 56]                 # first: the vector, under seven registers
    sub rsp, 8                          # 16-byte alignment at the call
    cld
    call {interrupt}
    add rsp, 8
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rcx
    add rsp, 8                          # vector
    pop rdx
    pop rax
    iretq

# The deadline timer's own stub: it runs only while `Deadline::wait` waits, which knows that RAX, RCX, RDX
# are lost and that RSI returns the TSC. So nothing precedes the reading of the clock.
.balign 16
.global guest_deadline_stub
guest_deadline_stub:
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov rsi, rax
    xor eax, eax
    xor edx, edx
    mov ecx, 0x80B                      # x2APIC EOI
    wrmsr
    iretq

# Executes VMCALL in ring 3 and returns its RAX. C calling convention: the call's number, the code and the data
# segment of ring 3. The caller has cleared RECOVERY's last use.
.global guest_ring3_vmcall
guest_ring3_vmcall:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    lea rax, [rip + 3f]
    mov [rip + {recovery}], rax         # an exception resumes at the way back
    mov [rip + guest_ring0_rsp], rsp
    mov rax, rsp
    push rdx                            # SS, RSP, RFLAGS, CS, RIP
    push rax
    push 2
    push rsi
    lea rcx, [rip + 2f]
    push rcx
    mov rax, rdi
    iretq
2:  vmcall
.pushsection .hypercall_sites, "a"
    .quad 2b
.popsection
3:  int 0xF1
.global guest_ring3_return
guest_ring3_return:
    mov rsp, [rip + guest_ring0_rsp]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

.section .bss.vectors, "aw", @nobits
.balign 8
guest_ring0_rsp:
    .skip 8
