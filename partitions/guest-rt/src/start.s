# From the boot loader's (or the hypervisor's) 32-bit hand-over to the first instruction of Rust:
# an identity map of 4 GiB by 2 MiB pages, long mode, a stack.

.section .multiboot2, "a"
.balign 8
multiboot2_header:
    .long 0xE85250D6                    # magic of a multiboot2 header
    .long 0                             # architecture: i386, protected mode
    .long multiboot2_header_end - multiboot2_header
    .long -(0xE85250D6 + (multiboot2_header_end - multiboot2_header))
    .if {framebuffer}
    .short 5                            # framebuffer, optional: only the probe draws
    .short 1
    .long 20
    .long 1024
    .long 768
    .long 32
    .balign 8
    .endif
    .short 0                            # end tag: type, flags, size
    .short 0
    .long 8
multiboot2_header_end:
    .if {room}
    .ascii "room for a header"          # found by these bytes, by a test that writes another one there
    .balign 64
    .endif

.section .text.start, "ax"
.code32
.global _start
_start:
    cli
    cld
    mov edi, eax                        # first argument of guest_start: the magic
    mov esi, ebx                        # second: the boot information
    mov esp, offset guest_stack_top

    # Each entry: present, writable, user (ring 3 is for guests that test the hypervisor).
    mov eax, offset guest_page_tables + 0x1007
    mov dword ptr [guest_page_tables], eax
    xor ecx, ecx
2:  lea eax, [ecx * 8]
    shl eax, 9
    add eax, offset guest_page_tables + 0x2007
    mov dword ptr [guest_page_tables + 0x1000 + ecx * 8], eax
    inc ecx
    cmp ecx, 4
    jne 2b
    xor ecx, ecx
2:  mov eax, ecx
    shl eax, 21
    or eax, 0x87                        # and bit 7: a 2 MiB page
    mov dword ptr [guest_page_tables + 0x2000 + ecx * 8], eax
    inc ecx
    cmp ecx, 2048
    jne 2b

    mov eax, cr4
    or eax, 0x20                        # PAE
    mov cr4, eax
    mov eax, offset guest_page_tables
    mov cr3, eax
    mov ecx, 0xC0000080                 # EFER.LME
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000001                  # paging, protection
    mov cr0, eax

    lgdt [start_gdt_pointer]
    push 0x08
    mov eax, offset start_long_mode
    push eax
    retf

.code64
start_long_mode:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov esp, offset guest_stack_top
    mov edi, edi                        # the upper halves are undefined after the switch
    mov esi, esi
    call guest_main
    ud2                                 # guest_main does not return

.section .rodata.start, "a"
.balign 8
start_gdt:
    .quad 0
    .quad 0x00AF9A000000FFFF            # 64-bit code; Rust installs its own table at once
start_gdt_pointer:
    .short start_gdt_pointer - start_gdt - 1
    .long start_gdt

.section .bss.start, "aw", @nobits
.balign 4096
guest_page_tables:
    .skip 6 * 4096
guest_stack:
    .skip 128 * 1024
guest_stack_top:
