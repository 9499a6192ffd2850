# What a started core runs: CPUID, once for each question of its page, then it halts for ever. Real mode; its segment
# is the page. cores.rs lays the page out.

.section .rodata.probe_core, "a"
.code16
.balign 16
.global probe_core_start
probe_core_start:
    cli
    cld
    mov ax, cs
    mov ds, ax
    mov bp, word ptr [0x100]            # how many questions
    mov si, 0x110                       # the first
2:  test bp, bp
    jz 3f
    mov eax, dword ptr [si]
    mov ecx, dword ptr [si + 4]
    cpuid
    mov dword ptr [si + 8], eax
    mov dword ptr [si + 12], ebx
    mov dword ptr [si + 16], ecx
    mov dword ptr [si + 20], edx
    add si, 24
    dec bp
    jmp 2b
3:  mov dword ptr [0x104], 1            # done
4:  hlt
    jmp 4b
.global probe_core_end
probe_core_end:
.code64
