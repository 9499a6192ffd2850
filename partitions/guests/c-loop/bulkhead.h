/* What a C guest needs to talk to Bulkhead: clock, console, measurements, the end. No library behind it.
 *
 * The same guest runs under Bulkhead and, started by GRUB's `multiboot2`, on the bare machine: there the
 * console is COM1 (115200 baud, 8N1) and the command line has to say tsc_khz=N.
 *
 * The registers of the calls are those of config/table/src/abi.rs. */
#ifndef BULKHEAD_H
#define BULKHEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Hypercalls (RAX) and their results. */
enum {
    BH_CONSOLE = 1,    /* RBX: bytes, 1 to 48, in RDI RSI RDX R8 R9 R10; returns the bytes taken */
    BH_SPAN_BEGIN = 2, /* opens the measured span */
    BH_SPAN_END = 3,   /* closes it; RBX returns the exits within */
    BH_WINDOW = 4,     /* RBX: epoch, RDI: frame, RSI: start, RDX: length, all in ticks */
    BH_FINISH = 5      /* RBX: verdict; does not return */
};
#define BH_DENIED ((uint64_t)-2)
#define BH_CONSOLE_BYTES 48

/* The registers of a hypercall, before and after. */
struct bh_registers {
    uint64_t rax, rbx, rdi, rsi, rdx, r8, r9, r10;
};

/* What bh_start found out. */
static struct {
    bool under_hypervisor;
    bool native_power_off;
    const char *command_line;
} bh_guest;

static inline void bh_vmcall(struct bh_registers *r)
{
    register uint64_t r8 __asm__("r8") = r->r8;
    register uint64_t r9 __asm__("r9") = r->r9;
    register uint64_t r10 __asm__("r10") = r->r10;
    __asm__ volatile("vmcall"
                     : "+a"(r->rax), "+b"(r->rbx), "+D"(r->rdi), "+S"(r->rsi), "+d"(r->rdx)
                     : "r"(r8), "r"(r9), "r"(r10)
                     : "memory");
}

static inline void bh_cpuid(uint32_t leaf, uint32_t out[4])
{
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(0));
}

static inline void bh_port_out(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "d"(port));
}

static inline uint8_t bh_port_in(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "d"(port));
    return value;
}

/* The time-stamp counter, in ticks. Bulkhead never shifts it: it is the board's own clock. */
static inline uint64_t bh_tsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

/* Writes bytes to the console; waits while it is full. */
static inline void bh_write(const char *text, size_t length)
{
    while (length > 0 && bh_guest.under_hypervisor) {
        size_t chunk = length < BH_CONSOLE_BYTES ? length : BH_CONSOLE_BYTES;
        uint64_t words[6] = {0};
        for (size_t i = 0; i < chunk; i++)
            words[i / 8] |= (uint64_t)(uint8_t)text[i] << (i % 8 * 8);
        struct bh_registers r = {BH_CONSOLE, chunk, words[0], words[1], words[2], words[3], words[4], words[5]};
        bh_vmcall(&r);
        if (r.rax > chunk)
            return; /* a status: this hypervisor takes no console output */
        text += r.rax;
        length -= r.rax;
    }
    for (; length > 0; text++, length--) {
        if (*text == '\n') {
            while (!(bh_port_in(0x3FD) & 0x20))
                ;
            bh_port_out(0x3F8, '\r');
        }
        while (!(bh_port_in(0x3FD) & 0x20))
            ;
        bh_port_out(0x3F8, (uint8_t)*text);
    }
}

static inline void bh_print(const char *text)
{
    size_t length = 0;
    while (text[length] != '\0')
        length++;
    bh_write(text, length);
}

static inline void bh_print_number(uint64_t number)
{
    char digits[20];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    bh_write(digits + at, sizeof digits - at);
}

/* Reports one figure; it lands in the run's report. NAME and UNIT have no spaces. */
static inline void bh_report(const char *name, uint64_t value, const char *unit)
{
    bh_print("@bulkhead value ");
    bh_print(name);
    bh_print(" ");
    bh_print_number(value);
    bh_print(" ");
    bh_print(unit);
    bh_print("\n");
}

/* Reports the verdict, with a few words of reason, and ends the guest. */
_Noreturn static inline void bh_finish(bool passed, const char *reason)
{
    bh_print(passed ? "@bulkhead verdict pass " : "@bulkhead verdict fail ");
    bh_print(reason);
    bh_print("\n");
    if (bh_guest.under_hypervisor) {
        struct bh_registers r = {.rax = BH_FINISH, .rbx = passed ? 0 : 1};
        bh_vmcall(&r);
    } else {
        while (!(bh_port_in(0x3FD) & 0x40))
            ; /* until the last byte has left the UART */
        for (const char *byte = "Shutdown"; bh_guest.native_power_off && *byte != '\0'; byte++)
            bh_port_out(0x8900, (uint8_t)*byte);
    }
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* The text behind `name` on the command line ("=100 other ..." or " other ..."), or NULL. */
static inline const char *bh_find_argument(const char *name)
{
    for (const char *at = bh_guest.command_line; *at != '\0';) {
        while (*at == ' ')
            at++;
        size_t i = 0;
        while (name[i] != '\0' && at[i] == name[i])
            i++;
        if (name[i] == '\0' && (at[i] == '=' || at[i] == ' ' || at[i] == '\0'))
            return at + i;
        while (*at != ' ' && *at != '\0')
            at++;
    }
    return NULL;
}

/* The number given as name=N on the command line, else `otherwise`. Ends the guest when it is no number. */
static inline uint64_t bh_argument(const char *name, uint64_t otherwise)
{
    const char *at = bh_find_argument(name);
    if (at == NULL)
        return otherwise;
    uint64_t number = 0;
    bool digits = false;
    if (*at == '=')
        at++;
    for (; *at >= '0' && *at <= '9'; at++) {
        digits = true;
        if (__builtin_mul_overflow(number, 10, &number) || __builtin_add_overflow(number, *at - '0', &number))
            break;
    }
    if (!digits || (*at != ' ' && *at != '\0')) {
        bh_print("command line: ");
        bh_print(name);
        bh_print(": write a whole number that fits 64 bits, such as ");
        bh_print(name);
        bh_print("=100\n");
        bh_finish(false, "an argument that is not understood");
    }
    return number;
}

/* Frequency of the time-stamp counter in kHz: ticks in a millisecond. */
static inline uint64_t bh_tsc_khz(void)
{
    uint64_t khz;
    if (bh_guest.under_hypervisor) {
        uint32_t timing[4];
        bh_cpuid(0x40000010, timing);
        khz = timing[0];
    } else {
        khz = bh_argument("tsc_khz", 0);
    }
    if (khz == 0) {
        bh_print("clock: unknown frequency; on the bare machine say tsc_khz=N on the command line\n");
        bh_finish(false, "no clock");
    }
    return khz;
}

/* Opens the span in which the hypervisor counts the guest's exits. Natively does nothing. */
static inline void bh_span_begin(void)
{
    struct bh_registers r = {.rax = BH_SPAN_BEGIN};
    if (bh_guest.under_hypervisor)
        bh_vmcall(&r);
}

/* Closes the span and returns the exits within it; 0 natively. */
static inline uint64_t bh_span_end(void)
{
    struct bh_registers r = {.rax = BH_SPAN_END};
    if (bh_guest.under_hypervisor)
        bh_vmcall(&r);
    return r.rbx;
}

/* The command line in the multiboot2 boot information: tags of type, size and contents, 8-byte aligned. */
static inline const char *bh_read_command_line(uint32_t boot_info)
{
    const uint8_t *tags = (const uint8_t *)(uintptr_t)boot_info;
    uint32_t total = *(const uint32_t *)tags;
    for (uint32_t at = 8; at + 8 <= total;) {
        uint32_t type = *(const uint32_t *)(tags + at);
        uint32_t size = *(const uint32_t *)(tags + at + 4);
        if (type == 1)
            return (const char *)(tags + at + 8);
        if (type == 0 || size < 8)
            break;
        at += (size + 7) & ~7u;
    }
    return "";
}

/* Finds out where the guest runs. Call it first, with the arguments of guest_main. */
static inline void bh_start(uint32_t magic, uint32_t boot_info)
{
    uint32_t features[4], base[4];
    bh_cpuid(1, features);
    bh_cpuid(0x40000000, base);
    /* "BulkheadHv" */
    bh_guest.under_hypervisor = features[2] >> 31 && base[1] == 0x6B6C7542 && base[2] == 0x64616568 && base[3] == 0x7648;
    bh_guest.command_line = magic == 0x36D76289 ? bh_read_command_line(boot_info) : "";
    bh_guest.native_power_off = bh_find_argument("native-power-off") != NULL;
    if (!bh_guest.under_hypervisor) {
        bh_port_out(0x3F9, 0);    /* no interrupts */
        bh_port_out(0x3FB, 0x80); /* the next two reach the divisor */
        bh_port_out(0x3F8, 1);    /* 115200 baud */
        bh_port_out(0x3F9, 0);
        bh_port_out(0x3FB, 0x03); /* 8N1 */
        bh_port_out(0x3FA, 0x07);
        bh_port_out(0x3FC, 0x03);
    }
}

#endif
