/* A control loop in C: a PI controller that heats a simulated vessel to its setpoint, once every period.
 *
 * Argument: cycles=N (200 by default). Reports how late the latest cycle began and the exits that it took. */
#include "bulkhead.h"

/* Periods in a second. */
#define RATE 2000
/* Temperatures are in thousandths of a degree. */
#define AMBIENT 20000
#define SETPOINT 80000
#define CLOSE_ENOUGH 2000

struct controller {
    int64_t integral;
};

/* One step: the heating power, 0 to 1000, for this temperature. */
static int64_t control(struct controller *controller, int64_t temperature)
{
    int64_t error = SETPOINT - temperature;
    int64_t power = error / 50 + controller->integral / 2000;
    bool saturated = power < 0 || power > 1000;
    if (!saturated)
        controller->integral += error; /* anti-windup: hold the integral at the limits */
    return power < 0 ? 0 : power > 1000 ? 1000 : power;
}

/* One step of the vessel: heated by the power, cooled by the room. */
static int64_t heat(int64_t temperature, int64_t power)
{
    return temperature + power * 2 - (temperature - AMBIENT) / 50;
}

void guest_main(uint32_t magic, uint32_t boot_info)
{
    bh_start(magic, boot_info);
    uint64_t period = bh_tsc_khz() * 1000 / RATE;
    uint64_t cycles = bh_argument("cycles", 200);
    bh_print("c-loop: a control loop in C\n");

    struct controller controller = {0};
    int64_t temperature = AMBIENT;
    uint64_t latest = 0;
    bh_span_begin();
    uint64_t first = bh_tsc() + period;
    for (uint64_t cycle = 0; cycle < cycles; cycle++) {
        uint64_t due = first + cycle * period; /* absolute: one late cycle does not move the next */
        uint64_t now;
        while ((now = bh_tsc()) < due)
            ;
        if (now - due > latest)
            latest = now - due;
        temperature = heat(temperature, control(&controller, temperature));
    }
    uint64_t exits = bh_span_end();

    bh_report("cycles", cycles, "cycles");
    bh_report("lateness-max", latest, "ticks");
    if (bh_guest.under_hypervisor)
        bh_report("span-exits", exits, "exits");
    bh_report("temperature", (uint64_t)temperature, "millidegrees");
    int64_t off = temperature > SETPOINT ? temperature - SETPOINT : SETPOINT - temperature;
    bh_finish(off < CLOSE_ENOUGH, off < CLOSE_ENOUGH ? "the vessel is at its setpoint" : "the vessel is off its setpoint");
}
